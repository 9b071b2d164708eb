# SPDX-License-Identifier: Apache-2.0
"""Reads which objects are pinned: the kernel's ids of the maps and programs below a directory.

The kernel uses each id only once until the next boot. So two equal results mean the same objects:
nobody unmounted the bpffs, removed a pin or replaced it in between.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from vxlane.datapath import syscall
from vxlane.errors import KernelError

LINK = "link-"
"""Begins the names of pinned links, which come and go with devices."""


def read(directory: Path) -> Mapping[str, int]:
    """Name -> id; 0: it is not a BPF object. Empty: the directory is gone."""
    try:
        names = [name for name in os.listdir(directory) if not name.startswith(LINK)]  # noqa: PTH208 (once a second, and a Path for each name costs more than the rest)
    except FileNotFoundError:
        return {}
    return {name: _identity(directory / name) for name in sorted(names)}


def remove(directory: Path) -> None:
    """Unpin everything, links too: packets take the kernel path until all is made anew."""
    shutil.rmtree(directory)
    directory.mkdir(mode=0o700)


def _identity(path: Path) -> int:
    try:
        descriptor = syscall.obj_get(path)
    except (KernelError, FileNotFoundError):
        return 0
    try:
        return syscall.object_id(descriptor)
    finally:
        os.close(descriptor)
