# SPDX-License-Identifier: Apache-2.0
"""CPU time of the whole machine.

In a lab both ends and the traffic's programs are in it. Whatever else the machine does is too.
"""

from __future__ import annotations

from dataclasses import dataclass

from vxlane.host import machine
from vxlane.host.machine import Machine

_BUSY = ("user", "nice", "system", "irq", "softirq")
"""Guests are in user; steal is another machine's."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU time, of all CPUs together."""

    busy: float
    softirq: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.busy - other.busy, self.softirq - other.softirq)


def of(counters: Machine) -> CpuTime:
    """Since the machine started."""
    return CpuTime(counters.seconds(*_BUSY), counters.seconds("softirq"))


def read() -> CpuTime:
    """Now."""
    return of(machine.read())
