# SPDX-License-Identifier: Apache-2.0
"""The programs' run time, as the kernel counts it while its statistics are on."""

from __future__ import annotations

import os
from pathlib import Path

from bench import Bench
from device import INDEX, Device
from world import World
from worldmaps import stand

from vxlane.datapath.abi import Program
from vxlane.datapath.attach import Hooks
from vxlane.datapath.runtime import RunTime, run_times, statistics

STATISTICS = "anon_inode:bpf-stats"


def has_statistics() -> bool:
    """Whether this process has the kernel count."""
    with os.scandir("/proc/self/fd") as files:
        return any(str(Path(file).readlink()) == STATISTICS for file in files)


def test_runs_are_counted_while_statistics_are_on(
    bench: Bench, auto: Hooks, device: Device
) -> None:
    """Each run of a program, and what it took in ns.

    Whoever has them on has the kernel count for the whole machine. So that they end is seen by our
    descriptor, and not by the count.
    """
    stand(bench.maps, World())
    auto.attach(Program.FROM_NIC, INDEX)
    before = run_times(bench.pins).get(Program.FROM_NIC, RunTime(0, 0))
    with statistics():
        device.send(Program.FROM_NIC, 5)
        assert has_statistics()
    assert not has_statistics()
    after = run_times(bench.pins)[Program.FROM_NIC]
    assert after.runs - before.runs == 5
    assert after.nanoseconds > before.nanoseconds


def test_where_nothing_is_pinned_there_is_none(tmp_path: Path) -> None:
    """Programs that are just being replaced, or are not there at all, are left out."""
    assert run_times(tmp_path) == {}
