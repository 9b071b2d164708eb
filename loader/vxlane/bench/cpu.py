# SPDX-License-Identifier: Apache-2.0
"""CPU time of the whole machine, as /proc/stat counts it (proc_stat(5)).

In a lab both ends and the traffic's programs are in it. Whatever else the machine does is too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_BUSY = ("user", "nice", "system", "irq", "softirq")
"""Guests are in user; steal is another machine's."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU time, of all CPUs together."""

    busy: float
    softirq: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.busy - other.busy, self.softirq - other.softirq)


def parse(text: str, ticks: float) -> CpuTime:
    """Since the machine started, from the text of /proc/stat with `ticks` a second."""
    spent = dict(zip(_FIELDS, map(int, text.splitlines()[0].split()[1:]), strict=False))
    return CpuTime(sum(spent[name] for name in _BUSY) / ticks, spent["softirq"] / ticks)


def read() -> CpuTime:
    """Now."""
    return parse(Path("/proc/stat").read_text(encoding="ascii"), os.sysconf("SC_CLK_TCK"))
