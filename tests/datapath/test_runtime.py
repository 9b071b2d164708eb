# SPDX-License-Identifier: Apache-2.0
"""The programs' run time, as the kernel counts it while its statistics are on."""

from __future__ import annotations

from pathlib import Path

from bench import Bench
from device import INDEX, Device
from world import World
from worldmaps import stand

from vxlane.datapath.abi import Program
from vxlane.datapath.attach import Hooks
from vxlane.datapath.runtime import RunTime, run_times, statistics


def test_runs_are_counted_while_statistics_are_on(
    bench: Bench, auto: Hooks, device: Device
) -> None:
    """Each run of a program, and what it took in ns.

    Without them nothing is counted, but whoever has them counts for all of the machine.
    """
    stand(bench.maps, World())
    auto.attach(Program.FROM_NIC, INDEX)
    before = run_times(bench.pins).get(Program.FROM_NIC, RunTime(0, 0))
    with statistics():
        device.send(Program.FROM_NIC, 5)
    after = run_times(bench.pins)[Program.FROM_NIC]
    assert after.runs - before.runs == 5
    assert after.nanoseconds > before.nanoseconds


def test_where_nothing_is_pinned_there_is_none(tmp_path: Path) -> None:
    """Programs that are just being replaced, or are not there at all, are left out."""
    assert run_times(tmp_path) == {}
