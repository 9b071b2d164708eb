# SPDX-License-Identifier: Apache-2.0
"""Files in directories that runtimes watch: replaced as a whole, or left alone.

Imports nothing of vxlane.
"""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, content: bytes, *, mode: int) -> bool:
    """Give `path` this content and mode atomically; False when it had both already.

    The temporary file's name begins with a dot and ends in nothing that a runtime reads as
    configuration. It is always the same, so one that a killed run left is overwritten.
    """
    if _is(path, content, mode):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return True


def remove(path: Path) -> bool:
    """Remove `path`; False when it was not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _is(path: Path, content: bytes, mode: int) -> bool:
    try:
        return path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode
    except OSError:
        return False
