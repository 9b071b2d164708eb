# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel's version and settings, and what is there to compile with."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from vxlane.datapath import precompiled
from vxlane.datapath.source import Part, headers_kind
from vxlane.doctor.checks.settings import FORWARDING, IGNORE_RST, LIBERAL, reverse_path
from vxlane.doctor.facts import Conntrack, Kernel, Sysctls
from vxlane.errors import CompileError
from vxlane.host import sysctls
from vxlane.probes.helpers import Result

_NETSTAT = Path("/proc/thread-self/net/netstat")
_COUNT, _MOST = "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_max"


def kernel(probes: tuple[Result, ...]) -> Kernel:
    """The kernel, with what was tried on it."""
    try:
        headers = headers_kind()
    except CompileError:
        headers = ""
    return Kernel(
        release=os.uname().release,
        probes=probes,
        has_compiled=_has_compiled(),
        has_bcc=_has_bcc(),
        headers=headers,
    )


def _has_compiled() -> bool:
    try:
        return precompiled.find(Part.PROGRAMS) is not None
    except CompileError:
        return False


def _has_bcc() -> bool:
    """Found and not imported: that would load LLVM. PyPI's bcc has no libbcc."""
    found = importlib.util.find_spec("bcc")
    places = (found.submodule_search_locations if found else None) or ()
    return any((Path(place) / "libbcc.py").exists() for place in places)


def settings(devices: Iterable[str]) -> Sysctls:
    """The settings that checks go by, those of `devices` among them."""
    names = [sysctls.BRIDGE_NETFILTER, FORWARDING, LIBERAL, IGNORE_RST]
    names += [reverse_path(device) for device in ("all", *devices)]
    read = ((name, sysctls.read(name)) for name in names)
    return {name: value for name, value in read if value is not None}


def conntrack() -> Conntrack | None:
    """How full the table of connections is; None without one."""
    count, most = sysctls.read(_COUNT), sysctls.read(_MOST)
    return Conntrack(count=int(count), most=int(most)) if count and most else None


def reverse_path_drops() -> int:
    """IPReversePathFilter: names stand in one line, numbers in the one after it."""
    lines = [line.split() for line in _NETSTAT.read_text(encoding="ascii").splitlines()]
    for names, numbers in zip(lines[::2], lines[1::2], strict=True):
        if "IPReversePathFilter" in names:
            return int(numbers[names.index("IPReversePathFilter")])
    return 0
