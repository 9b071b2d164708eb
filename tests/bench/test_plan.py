# SPDX-License-Identifier: Apache-2.0
"""What a run measures, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from vxlane.bench import plan
from vxlane.bench.model import Placement
from vxlane.bench.plan import Depth
from vxlane.bench.rounds import possible
from vxlane.bench.run import Wanted, _cells
from vxlane.bench.works import WORKS
from vxlane.errors import OptionError


def test_each_path_has_each_turn():
    """In as many rounds as there are paths each is first once, second once, and so on."""
    orders = [plan.order(("a", "b", "c"), turn) for turn in range(3)]
    assert [Counter(turn) for turn in zip(*orders, strict=True)] == [Counter("abc")] * 3
    assert plan.order(("a", "b", "c"), 3) == orders[0]


@pytest.mark.parametrize("depth", Depth)
def test_every_planned_work_is_described(depth):
    """A plan names only works and paths that there are, and no cell twice."""
    cells = plan.cells(depth)
    assert {cell.work for cell in cells} <= WORKS.keys()
    assert {path for cell in cells for path in cell.paths} <= plan.PATHS.keys()
    assert len(set(cells)) == len(cells)


def test_deeper_is_more():
    """All that a short run measures is in the longer ones, and a full run has every work."""

    def measured(depth):
        return {
            (cell.place, cell.work, cell.placement, path)
            for cell in plan.cells(depth)
            for path in cell.paths
        }

    assert measured(Depth.QUICK) < measured(Depth.DEFAULT) < measured(Depth.FULL)
    assert {cell.work for cell in plan.cells(Depth.FULL)} == WORKS.keys()


def test_quick_is_quick():
    """A short run measures for less than two minutes, the start of each program included."""
    turns = sum(len(cell.paths) for cell in plan.cells(Depth.QUICK)) * 5
    assert turns * (plan.SECONDS[Depth.QUICK] + 0.3) < 120


def test_given_ends_are_left_as_they_are():
    """Between ends that are given nothing runs that changes a device or needs other pods."""
    cells = plan.given_cells(Depth.FULL, ["stock", "bypass"], on_hosts=False)
    assert {cell.place for cell in cells} == {plan.GIVEN}
    assert {cell.paths for cell in cells} == {("stock", "bypass")}
    assert not {plan.TCP1_CUT, plan.FLOODED} & {cell.work for cell in cells}
    assert plan.TCP1 in {cell.work for cell in cells}


def test_works_are_chosen_by_a_word():
    """One of the words in a work's name is enough, in any case."""
    works = {cell.work for cell in plan.chosen(plan.cells(Depth.FULL), ["NGINX", "slow"])}
    assert works == {plan.NGINX, plan.SLOW}


def test_a_path_that_is_not_there_leaves_the_others():
    """Cells go on without a path that the kernel lacks."""
    cells = list(plan.without(plan.cells(Depth.QUICK), ["device", "host"]))
    assert {cell.paths for cell in cells} == {("stock", "bypass")}
    assert list(plan.without(cells, ["stock", "bypass"])) == []


def test_what_is_missing_is_named(monkeypatch):
    """A work without its tools is not run, and why is said; the same for two CPUs where one is."""
    monkeypatch.setattr("shutil.which", lambda name: None if name == "wrk" else name)
    kept, missing = possible(plan.cells(Depth.FULL), cpus=[0])
    assert plan.NGINX not in {cell.work for cell in kept}
    assert {cell.placement for cell in kept} == {Placement.ONE}
    assert {(one.what, one.why.split()[0]) for one in missing} == {
        (plan.NGINX, "wrk"),
        ("ends on two CPUs", "this"),
    }


@pytest.mark.parametrize(
    ("works", "cpus", "words"),
    [
        (["nginx"], [0, 1], "nothing of that can be measured. nginx and wrk: wrk not installed"),
        (["TCP, 1", "flood"], [0], "ends on two CPUs: this process may run on one CPU only"),
        (["no such"], [0, 1], "no workload here has such a name; .*; growth of peers"),
    ],
)
def test_why_nothing_is_left(monkeypatch, works, cpus, words):
    """A work that can't be measured here is not one that isn't there, and all names are told."""
    monkeypatch.setattr("shutil.which", lambda name: None if name == "wrk" else name)
    planned = [cell for cell in plan.cells(Depth.FULL) if cell.placement is Placement.TWO]
    monkeypatch.setattr(plan, "cells", lambda _: planned)
    with pytest.raises(OptionError, match=words):
        _cells(Wanted(Depth.FULL, 5, 1.0, works), cpus)
