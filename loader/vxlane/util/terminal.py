# SPDX-License-Identifier: Apache-2.0
"""How wide the lines on standard output may be."""

from __future__ import annotations

import shutil
import sys

_USUAL = 80


def output_width() -> int | None:
    """Columns of the terminal that standard output is. None: it is a pipe or a file.

    $COLUMNS comes first. A person sets it, and so does watch(1), which reads a pipe.
    """
    size = shutil.get_terminal_size(fallback=(0, 0))
    if size.columns:
        return size.columns
    # A serial line, or a shell in a container, may be a terminal that does not know its size.
    is_terminal = sys.__stdout__ is not None and sys.__stdout__.isatty()
    return _USUAL if is_terminal else None
