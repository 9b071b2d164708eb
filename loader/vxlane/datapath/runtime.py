# SPDX-License-Identifier: Apache-2.0
"""Reads how long the programs run, which the kernel counts while its BPF statistics are on.

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

_ENABLE_STATS = 32
_RUN_TIME = 192
"""Where run_time_ns and run_cnt, each a u64, stand in struct bpf_prog_info (uapi/linux/bpf.h)."""


@dataclass(frozen=True, slots=True)
class RunTime:
    """The run time of one program since it was loaded, while statistics were on."""

    nanoseconds: int
    runs: int

    def since(self, before: RunTime) -> RunTime:
        """The difference from `before`."""
        return RunTime(self.nanoseconds - before.nanoseconds, self.runs - before.runs)


def run_time(descriptor: int) -> RunTime:
    """The run time of the program behind a descriptor."""
    info = syscall.object_info(descriptor, _RUN_TIME + 16)
    return RunTime(*struct.unpack_from("=QQ", info, _RUN_TIME))


def run_time_at(pin: Path) -> RunTime:
    """The run time of the program that is pinned there now."""
    descriptor = syscall.obj_get(pin)
    try:
        return run_time(descriptor)
    finally:
        os.close(descriptor)


def run_times(pins: Path) -> dict[Program, RunTime]:
    """The run time of each program below `pins`. Programs without counted runs are missing."""
    found = {}
    for program in Program:
        with contextlib.suppress(FileNotFoundError, KernelError):  # It is just being replaced.
            found[program] = run_time_at(pins / program.label)
    return {program: spent for program, spent in found.items() if spent.runs}


@contextlib.contextmanager
def statistics() -> Iterator[None]:
    """Switch statistics on within the block, whatever the sysctl says (Linux 5.8)."""
    advice = "before Linux 5.8 only the sysctl kernel.bpf_stats_enabled has it count"
    with syscall.explained("have the kernel count what programs cost", advice):
        descriptor = syscall.call(_ENABLE_STATS, ctypes.create_string_buffer(syscall.ATTR_SIZE))
    try:
        yield
    finally:
        os.close(descriptor)
