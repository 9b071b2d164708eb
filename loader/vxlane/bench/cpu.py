# SPDX-License-Identifier: Apache-2.0
"""CPU time of whole machines.

In a lab both ends and the traffic's programs are in it. Whatever else the machine does is too.
Of ends on two hosts it is the time of both, and that of each is told beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vxlane.bench.ends import Ends
from vxlane.host import machine
from vxlane.lab.figure import Figure

SIDES = ("client's side", "server's side")
_BUSY = ("user", "nice", "system", "irq", "softirq")
"""User time includes that of guests. Steal is left out: other machines had it."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU time, of all CPUs together."""

    busy: float
    softirq: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.busy - other.busy, self.softirq - other.softirq)


def of(stat: str) -> CpuTime:
    """Since the machine started, from the text of its /proc/stat."""
    ticks = machine.ticks_of(stat).values()
    return CpuTime(machine.seconds(ticks, *_BUSY), machine.seconds(ticks, "softirq"))


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time of each machine that has an end, the client's first."""

    machines: tuple[CpuTime, ...]

    @property
    def busy(self) -> float:
        """Of all of them, seconds."""
        return sum(time.busy for time in self.machines)

    @property
    def softirq(self) -> float:
        """Of all of them, seconds."""
        return sum(time.softirq for time in self.machines)

    def __sub__(self, other: Spent) -> Spent:
        both = zip(self.machines, other.machines, strict=True)
        return Spent(tuple(later - before for later, before in both))

    def values(self, cpu: Figure, softirq: Figure, share: float) -> dict[str, float]:
        """Times `share`: of all machines, and of each side if the ends are on two."""
        found = {cpu.name: self.busy * share, softirq.name: self.softirq * share}
        if len(self.machines) > 1:
            for side, time in zip(SIDES, self.machines, strict=True):
                found[of_side(cpu, side).name] = time.busy * share
                found[of_side(softirq, side).name] = time.softirq * share
        return found


def of_side(figure: Figure, side: str) -> Figure:
    """That part of a figure that is one side's."""
    return replace(figure, name=f"{figure.name}, {side}")


def read(ends: Ends) -> Spent:
    """The time until now. All machines are taken to count in the ticks of this one, 10 ms."""
    return Spent(tuple(of(end.read(machine.STAT)) for end in ends.machines))
