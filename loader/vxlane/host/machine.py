# SPDX-License-Identifier: Apache-2.0
"""Reads what the machine's CPUs did from /proc: their time, softirqs, and the packets they dropped.

The figures are for the whole machine, in any network namespace. Sources:
Documentation/filesystems/proc.rst, net/core/net-procfs.c (softnet_stat).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STAT = "/proc/stat"
_FILES = (STAT, "/proc/softirqs", "/proc/net/softnet_stat")
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
        return seconds((cpu.ticks for cpu in self.cpus.values()), *states)


def read() -> Machine:
    """The counters now."""
    return parse(*(Path(name).read_text(encoding="ascii") for name in _FILES))


def parse(stat: str, softirqs: str, softnet: str) -> Machine:
    """From the texts of /proc/stat, /proc/softirqs and /proc/net/softnet_stat."""
    received, sent = (_softirqs(softirqs, kind) for kind in ("NET_RX", "NET_TX"))
    ticks = ticks_of(stat)
    columns = [line.split() for line in softnet.splitlines()]
    return Machine(
        {cpu: Cpu(ticks[cpu], received.get(cpu, 0), sent.get(cpu, 0)) for cpu in sorted(ticks)},
        sum(int(words[1], 16) for words in columns),
        sum(int(words[2], 16) for words in columns),
    )


def ticks_of(stat: str) -> dict[int, dict[str, int]]:
    """Each CPU's time by state, as `Cpu.ticks` has it, from the text of STAT alone."""
    return dict(_ticks(stat))


def seconds(ticks: Iterable[Mapping[str, int]], *states: str) -> float:
    """Time of these CPUs together in these states."""
    found = sum(each.get(state, 0) for each in ticks for state in states)
    return found / os.sysconf("SC_CLK_TCK")


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
