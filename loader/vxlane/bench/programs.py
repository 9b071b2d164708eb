# SPDX-License-Identifier: Apache-2.0
"""What the eBPF programs cost a packet, by the kernel's own count (bpftool-prog(8), run_time_ns).

The kernel counts only meanwhile. Its counting is in the figures: some 20 ns a run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vxlane.bench import device, one_packet, plan
from vxlane.bench.document import Json
from vxlane.bench.setting import Setting
from vxlane.bench.works import WORKS
from vxlane.datapath import loose, runtime, syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.programs import pin_directory
from vxlane.lab.lab import Lab

_REPEAT = 100_000
_FEWEST_RUNS = 100
"""One that only learns runs once in a bypassed flow, and what that took says nothing."""
_RUN_STATISTICS, _TEST_RUN = "run statistics", "test run"
BYPASSED = "UDP, 64 B, bypassed"
_STRANGER = bytes.fromhex("ffffffffffff020000000001") + b"\x08\x06" + bytes(46)
"""An ARP frame: no business of any program, and small."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One path's programs by name, each as often as a node has it."""

    path: str
    pins: tuple[tuple[str, Path], ...]


def of_bypass(lab: Lab) -> Pinned:
    """vxlane's, on the nodes that have an agent."""
    pins = [
        (program.label, pin_directory(node.directory) / program.label)
        for node in lab.accelerated()
        for program in Program
    ]
    return Pinned("bypass", tuple(pins))


def of_others(lab: Lab, path: str) -> Pinned:
    """Those of the path device or encap, which all nodes share."""
    directory = device.pin_directory(lab)
    return Pinned(path, tuple((name, directory / name) for name in device.PROGRAMS[path]))


def under_load(pinned: Pinned, works: Mapping[str, str], setting: Setting) -> list[Json]:
    """Of each program, what a packet costs it in these works: name -> what to call its packets."""
    return [
        _entry(pinned.path, program, packets, ns, runs, _RUN_STATISTICS)
        for work, packets in works.items()
        for program, (ns, runs) in costs_of(pinned, work, setting).items()
    ]


def costs_of(pinned: Pinned, work: str, setting: Setting) -> dict[str, tuple[float, int]]:
    """Of each program, ns a packet in that work and how many it saw; not of those with few."""
    return {
        program: (nanoseconds / runs, runs)
        for program, (nanoseconds, runs) in _counted(pinned, work, setting).items()
        if runs >= _FEWEST_RUNS
    }


def _counted(pinned: Pinned, work: str, setting: Setting) -> dict[str, tuple[int, int]]:
    """Nanoseconds and runs of each program during a work, its nodes together."""
    with runtime.statistics():
        before = {pin: runtime.run_time_at(pin) for _, pin in pinned.pins}
        WORKS[work].run(setting)
        after = {pin: runtime.run_time_at(pin) for _, pin in pinned.pins}
    found: dict[str, tuple[int, int]] = {}
    for name, pin in pinned.pins:
        nanoseconds, runs = found.get(name, (0, 0))
        nanoseconds += after[pin].nanoseconds - before[pin].nanoseconds
        found[name] = (nanoseconds, runs + after[pin].runs - before[pin].runs)
    return found


def alone(pinned: Pinned) -> list[Json]:
    """What a packet that is none of its business costs each program, in test runs of the kernel."""
    found = []
    for name, pin in dict(pinned.pins).items():
        descriptor = syscall.obj_get(pin)
        try:
            _, _, cost = loose.prog_test_run(descriptor, _STRANGER, _REPEAT)
        finally:
            os.close(descriptor)
        found.append(_entry(pinned.path, name, "ARP", cost, _REPEAT, _TEST_RUN))
    return found


def bypassed(lab: Lab, setting: Setting) -> list[Json]:
    """What a datagram between those ends costs vxlane's programs, in test runs."""
    WORKS[plan.UDP64].run(setting)  # a flow is known after it, and not for long
    client, server = lab.pod(setting.ends.source.name), lab.pod(setting.ends.target.name)
    return [
        _entry(plan.BYPASS, cost.program.label, BYPASSED, cost.ns, one_packet.RUNS, _TEST_RUN)
        for cost in one_packet.costs(lab, client, server)
    ]


def _entry(path: str, program: str, packets: str, ns: float, runs: int, how: str) -> Json:
    return {
        "path": path,
        "program": program,
        "packets": packets,
        "ns": round(ns, 1),
        "runs": runs,
        "how": how,
    }
