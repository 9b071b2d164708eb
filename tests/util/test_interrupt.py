# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C end a program wherever they strike it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import gc, signal, time, weakref
from vxlane.util import interrupt
interrupt.catch()
class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
class Cycle:
    pass
def strike(*_):
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    "place",
    [
        "strike()",
        "Dying()",
        "thing = Cycle(); ref = weakref.ref(thing, strike); del thing",
        "gc.callbacks.append(strike); gc.collect()",
        "import asyncio; l = asyncio.new_event_loop(); l.call_soon(strike); l.run_forever()",
    ],
    ids=["anywhere", "destructor", "weak-reference", "collection", "event-loop"],
)
def test_a_signal_ends_the_program_wherever_it_strikes(place):
    """Also where Python ignores what is raised; its name is told, and cleaning up is done."""
    program = f"{BEGIN}\ntry:\n    {place}\n    time.sleep(5)\n"
    program += "except KeyboardInterrupt as came:\n    strike()\n    print(came, 'cleaned up')\n"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=4, check=True
    )
    assert ended.stdout == "SIGTERM cleaned up\n"
    assert ended.stderr == ""
