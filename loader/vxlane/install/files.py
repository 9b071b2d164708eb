# SPDX-License-Identifier: Apache-2.0
"""Files in directories that runtimes watch: replaced as a whole, or left alone.

Imports util only.
"""

from __future__ import annotations

from pathlib import Path

from vxlane.util import files


def replace(path: Path, content: bytes, *, mode: int) -> bool:
    """Give `path` this content and mode; False when it had both already."""
    if _is(path, content, mode):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    # Durably: a node that finds an empty configuration after a power failure starts no pod.
    files.replace_durably(path, content, mode=mode)
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
