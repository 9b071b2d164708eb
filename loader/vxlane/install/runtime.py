# SPDX-License-Identifier: Apache-2.0
"""Whether this node's container runtime reads drop-in plugins.

libcni from 1.3.0 appends <configuration directory>/<network>/*.conf to the network's list
(containernetworking/cni, libcni/conf.go). It is linked into the runtime, which does not tell its
version. But a program with that rule holds the key that switches the rule off. Imports no other
module of vxlane.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from pathlib import Path

# Beside Docker its containerd runs too, but cri-dockerd calls the plugins.
_RUNTIMES = ("containerd", "cri-dockerd", "crio", "k3s", "rke2")
_KEY = b"loadOnlyInlinedPlugins"


def read_drop_ins() -> bool:
    """Whether every runtime that runs here reads drop-ins; if none runs, every installed one.

    False if none is found: all runtimes read the older form of configuration.
    """
    programs = set(_running()) or {path for path in map(_installed, _RUNTIMES) if path}
    return bool(programs) and all(_holds_key(program) for program in programs)


def _running() -> Iterator[Path]:
    """The executables of runtimes among this machine's processes."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                name = (process / "exe").readlink().name
            except OSError:
                continue  # it is a kernel thread, or it ended
            if name in _RUNTIMES:
                yield process / "exe"


def _installed(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _holds_key(program: Path) -> bool:
    try:
        with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return m.find(_KEY) >= 0
    except (OSError, ValueError):  # it ended, or is empty
        return False
