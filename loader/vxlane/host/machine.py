# SPDX-License-Identifier: Apache-2.0
"""What the machine's CPUs did, as /proc has it: their time, softirqs, and packets they dropped.

Of the whole machine, whatever the network namespace. Sources: Documentation/filesystems/proc.rst,
net/core/net-procfs.c (softnet_stat).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = ("/proc/stat", "/proc/softirqs", "/proc/net/softnet_stat")
STATES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""How /proc/stat divides a CPU's time."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Counters of one CPU since the machine's start."""

    ticks: dict[str, int]
    """state -> time, in ticks of 1 / SC_CLK_TCK seconds. Guests are in user."""
    net_rx: int
    """NET_RX softirqs: rounds in which packets were received."""
    net_tx: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Counters since the machine's start."""

    cpus: dict[int, Cpu]
    dropped: int
    """Packets that found a CPU's backlog full (net.core.netdev_max_backlog)."""
    squeezed: int
    """Rounds that ended with work left (net.core.netdev_budget, netdev_budget_usecs)."""

    def seconds(self, *states: str) -> float:
        """Time of all CPUs together in these states."""
        ticks = sum(cpu.ticks.get(state, 0) for cpu in self.cpus.values() for state in states)
        return ticks / os.sysconf("SC_CLK_TCK")


def read() -> Machine:
    """The counters now."""
    return parse(*(Path(name).read_text(encoding="ascii") for name in FILES))


def parse(stat: str, softirqs: str, softnet: str) -> Machine:
    """From the text of `FILES`."""
    received, sent = (_softirqs(softirqs, kind) for kind in ("NET_RX", "NET_TX"))
    ticks = dict(_ticks(stat))
    columns = [line.split() for line in softnet.splitlines()]
    return Machine(
        {cpu: Cpu(ticks[cpu], received.get(cpu, 0), sent.get(cpu, 0)) for cpu in sorted(ticks)},
        sum(int(words[1], 16) for words in columns),
        sum(int(words[2], 16) for words in columns),
    )


def _ticks(stat: str) -> Iterator[tuple[int, dict[str, int]]]:
    for line in stat.splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            yield int(name[3:]), dict(zip(STATES, map(int, values), strict=False))


def _softirqs(text: str, kind: str) -> dict[int, int]:
    """Of one kind, by CPU: the head names the CPUs that are there."""
    head, *lines = text.splitlines()
    cpus = [int(word[3:]) for word in head.split()]
    row = next((line for line in lines if line.split()[0] == f"{kind}:"), kind)
    return dict(zip(cpus, map(int, row.split()[1:]), strict=False))
