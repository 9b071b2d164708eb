# SPDX-License-Identifier: Apache-2.0
"""How wide standard output is: a terminal, a pipe, and what a person says of either."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest

ASK = "import sys; from vxlane.util.terminal import output_width; sys.exit(output_width() or 0)"


def in_no_terminal(env: dict[str, str]) -> int:
    """What a process finds whose output nobody sees."""
    return subprocess.call([sys.executable, "-c", ASK], env=env, stdout=subprocess.DEVNULL)


def in_a_terminal(columns: int) -> Callable[[dict[str, str]], int]:
    """What one finds in a terminal of so many columns; 0: it does not know."""

    def ask(env: dict[str, str]) -> int:
        near, far = pty.openpty()
        try:
            fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            return subprocess.call([sys.executable, "-c", ASK], env=env, stdout=far)
        finally:
            os.close(near)
            os.close(far)

    return ask


@pytest.mark.parametrize(
    ("ask", "said", "width"),
    [
        (in_no_terminal, {}, 0),
        (in_no_terminal, {"COLUMNS": "100"}, 100),
        (in_no_terminal, {"COLUMNS": "wide"}, 0),
        (in_a_terminal(132), {}, 132),
        (in_a_terminal(132), {"COLUMNS": "100"}, 100),
        (in_a_terminal(0), {}, 80),
    ],
    ids=["none", "none, and COLUMNS", "no number", "terminal", "both", "unknown size"],
)
def test_width(ask: Callable[[dict[str, str]], int], said: dict[str, str], width: int) -> None:
    """COLUMNS comes before the terminal's size, and what is no terminal has no limit (0)."""
    unsaid = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    assert ask(unsaid | said) == width
