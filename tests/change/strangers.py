# SPDX-License-Identifier: Apache-2.0
"""Somebody else's program on a hook: it counts what it sees and judges nothing."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

from rig import ifindex
from taps import inside

from vxlane.datapath import syscall
from vxlane.datapath.syscall import TcxHook
from vxlane.lab import namespaces

_PROG_LOAD, _ENABLE_STATS = 5, 32
_SCHED_CLS = 3
_CODE = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""return -1: TCX_NEXT, and TC_ACT_UNSPEC too."""
_INFO_SIZE, _RUN_COUNT = 256, 200
"""Of struct bpf_prog_info (linux/bpf.h)."""

Seen = Callable[[], int]
"""How many packets the stranger has seen."""


@contextlib.contextmanager
def tcx(lab: Any, node: str, device: str, hook: TcxHook) -> Iterator[Seen]:
    """A TCX program, behind those that are there."""
    index = ifindex(lab.netns(node), device)
    with _program() as (program, seen):
        link = inside(lab.netns(node), lambda: syscall.link_create(program, index, hook))
        try:
            yield seen
        finally:
            os.close(link)


@contextlib.contextmanager
def clsact(lab: Any, node: str, device: str, hook: TcxHook) -> Iterator[Seen]:
    """A tc filter, and the qdisc for it if there is none."""

    def tc(*words: str, check: bool = True) -> None:
        namespaces.run(None, "tc", "-n", lab.netns(node), *words, check=check)

    tc("qdisc", "add", "dev", device, "clsact", check=False)
    place = ["dev", device, hook.name.lower(), "prio", "7", "protocol", "all"]
    pin = lab.node(node).directory / "bpf" / "stranger"
    with _program() as (program, seen):
        syscall.obj_pin(program, pin)
        tc("filter", "add", *place, "bpf", "direct-action", "pinned", str(pin))
        pin.unlink()
        try:
            yield seen
        finally:
            tc("filter", "del", *place)


@contextlib.contextmanager
def _program() -> Iterator[tuple[int, Seen]]:
    """The program and what it counts, which the kernel does as long as somebody asks it to."""
    code, licence = (ctypes.create_string_buffer(text, len(text)) for text in (_CODE, b"GPL\0"))
    where = ctypes.addressof(code), ctypes.addressof(licence)
    attr = struct.pack("=IIQQIIQII", _SCHED_CLS, len(_CODE) // 8, *where, 0, 0, 0, 0, 0)
    with contextlib.ExitStack() as stack:
        program, _ = syscall._bpf(_PROG_LOAD, attr)
        stack.callback(os.close, program)
        asking, _ = syscall._bpf(_ENABLE_STATS, struct.pack("=I", 0))
        stack.callback(os.close, asking)
        yield program, lambda: _runs(program)


def _runs(program: int) -> int:
    info = ctypes.create_string_buffer(_INFO_SIZE)
    attr = struct.pack("=IIQ", program, len(info), ctypes.addressof(info))
    syscall._bpf(syscall._OBJ_INFO, attr)
    return int(struct.unpack_from("=Q", info.raw, _RUN_COUNT)[0])
