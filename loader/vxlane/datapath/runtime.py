# SPDX-License-Identifier: Apache-2.0
"""How long the programs run: the kernel counts it while its BPF statistics are on.

They are on while the sysctl kernel.bpf_stats_enabled is 1, or while a tool holds a descriptor of
BPF_ENABLE_STATS. Then the kernel reads its clock twice for each run (__bpf_prog_run() in
linux/filter.h).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.errors import KernelError

_PROG_TEST_RUN, _ENABLE_STATS = 10, 32
_RUN_TIME = 192
"""Where run_time_ns and run_cnt, each a u64, stand in struct bpf_prog_info (uapi/linux/bpf.h)."""


@dataclass(frozen=True, slots=True)
class RunTime:
    """Of one program, since it was loaded, as far as statistics were on."""

    nanoseconds: int
    runs: int


def run_times(pins: Path) -> dict[Program, RunTime]:
    """Of each program below `pins`; those that no run was counted of are missing."""
    found = {}
    for program in Program:
        try:
            found[program] = run_time(pins / program.label)
        except (FileNotFoundError, KernelError):
            pass  # It is just being replaced.
    return {program: spent for program, spent in found.items() if spent.runs}


def run_time(pin: Path) -> RunTime:
    """Of one pinned program."""
    descriptor = syscall.obj_get(pin)
    try:
        info = syscall.object_info(descriptor, _RUN_TIME + 16)
    finally:
        os.close(descriptor)
    return RunTime(*struct.unpack_from("=QQ", info, _RUN_TIME))


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    """Have the kernel count during the block, also if it does not by its sysctl (Linux 5.8)."""
    with syscall.explained("have the kernel count what programs cost"):
        descriptor = syscall.call(_ENABLE_STATS, ctypes.create_string_buffer(syscall.ATTR_SIZE))
    try:
        yield
    finally:
        os.close(descriptor)


def test_run(pin: Path, frame: bytes, repeat: int) -> int:
    """Nanoseconds of one of `repeat` runs of a pinned program over one skb, made of `frame`."""
    held = ctypes.create_string_buffer(frame, len(frame))
    descriptor = syscall.obj_get(pin)
    request = struct.pack(
        "=IIIIQQI", descriptor, 0, len(frame), 0, ctypes.addressof(held), 0, repeat
    )
    attr = ctypes.create_string_buffer(request, syscall.ATTR_SIZE)
    try:
        with syscall.explained(f"run {pin.name} over a frame"):
            syscall.call(_PROG_TEST_RUN, attr)
    finally:
        os.close(descriptor)
    return int(struct.unpack_from("=I", attr.raw, 36)[0])
