# SPDX-License-Identifier: Apache-2.0
"""Mounts the bpffs for the pins: below the state directory, one for each agent.

/sys/fs/bpf is not used, because `ip netns exec` mounts another /sys, in which the pins are missing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from vxlane.datapath.reasons import lacking
from vxlane.errors import KernelError

_libc = ctypes.CDLL(None, use_errno=True)
_MAGIC = 0xCAFE4A11


def ensure_bpffs(path: Path) -> None:
    """Mount a bpffs on `path`, unless it is on one already. KernelError: the mount failed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_bpffs(path):
        return
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700"):
        advice = lacking(["SYS_ADMIN"]) or "a kernel with CONFIG_BPF is needed"
        raise KernelError(f"mount a bpffs at {path}", ctypes.get_errno(), advice)


def remove_bpffs(path: Path) -> None:
    """Unmount the bpffs, which removes all pins on it. Does nothing if it is not mounted."""
    if path.is_dir() and is_bpffs(path) and _libc.umount2(os.fsencode(path), 0):
        raise KernelError(f"unmount {path}", ctypes.get_errno())


def is_bpffs(path: Path) -> bool:
    """Whether `path` is on a bpffs."""
    # struct statfs begins with the file system's magic, a long on every Linux.
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer):
        return False
    return int(struct.unpack_from("@l", buffer.raw)[0]) == _MAGIC
