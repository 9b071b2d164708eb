# SPDX-License-Identifier: Apache-2.0
"""Scratch directories. A process that is killed with -9 leaves its own, and the next one of the
kind removes it.

Imports no other module of vxlane.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def directory(kind: str) -> Iterator[Path]:
    """A directory for the block. First those of this kind go whose processes have ended."""
    prefix = f"vxlane-{kind}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        if _is_left(left, left.name.removeprefix(prefix).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-") as made:
        yield Path(made)


def _is_left(place: Path, pid: str) -> bool:
    try:
        is_ours = place.lstat().st_uid == os.geteuid()
    except FileNotFoundError:  # another process removes it too
        return False
    return is_ours and pid.isdecimal() and not Path("/proc", pid).exists()
