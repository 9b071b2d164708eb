# SPDX-License-Identifier: Apache-2.0
"""The rounds' order and what a failure costs, without a network."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from vxlane.bench import parity, plan, rounds, witness
from vxlane.bench.ends import in_namespaces
from vxlane.bench.grounds import Stand
from vxlane.bench.model import Placement, Taken
from vxlane.bench.plan import Cell
from vxlane.bench.rounds import Rounds
from vxlane.bench.works import Work
from vxlane.errors import LabError, ToolError
from vxlane.lab.figure import Better, Figure

FIGURE = Figure("rate", "k/s", Better.MORE)
PATHS = ("stock", "device", "bypass")


class Ground:
    """Each path's client goes by the path's name."""

    def stand(self, path, place):  # noqa: ARG002 (a ground has both)
        """No packet is looked at."""
        return Stand(in_namespaces(path, "server", "10.42.2.2"), "10.42.2.2", 1450)


@pytest.fixture
def hold(monkeypatch):
    """Hold rounds of one work that notes who was measured, and fails for whom it is told to."""
    asked, wrong = [], set()

    def run(setting):
        asked.append((setting.ends.source.name, setting.cpus))
        if ("work", setting.ends.source.name) in wrong:
            raise LabError("nothing arrived")
        return Taken({"rate": float(len(asked))}, ("server", "client"))

    work = Work("work", (FIGURE,), run)
    monkeypatch.setattr(rounds, "WORKS", {"work": work, **dict.fromkeys(rounds._WARM_UP, work)})
    monkeypatch.setattr(rounds, "_PARITY_SECONDS", 0)
    monkeypatch.setattr(
        parity,
        "complaint",
        lambda stand: "0 of 10 pings came back" * (("parity", stand.ends.source.name) in wrong),
    )
    monkeypatch.setattr(witness, "read", lambda _: {})

    def held(count, placement=Placement.TWO, failing=()):
        wrong.update(failing)
        cell = Cell(plan.BETWEEN, "work", placement, PATHS)
        kept = Rounds(Ground(), count, 0.1, (4, 6), Path("talk"), lambda _: None)
        findings = kept.hold([cell])
        (row,) = findings.rows.values()
        return row, findings, asked

    held.asked = asked
    return held


def test_paths_take_turns(hold):
    """After a warm-up each round measures every path once, and begins with another one."""
    row, findings, asked = hold(3)
    names = [name for name, _ in asked]
    assert names[-9:] == [
        *("stock", "device", "bypass"),
        *("device", "bypass", "stock"),
        *("bypass", "stock", "device"),
    ]
    assert set(names[:-9]) == set(PATHS)
    assert {len(values) for values in row.values.values()} == {3}
    assert findings.failures == []


@pytest.mark.parametrize(
    ("placement", "kept", "ends"),
    [
        (Placement.ONE, (), (4, 4)),
        (Placement.TWO, (), (4, 6)),
        (Placement.AWAKE, (4, 6), (4, 6)),
    ],
)
def test_the_ends_are_placed(hold, monkeypatch, placement, kept, ends):
    """Both ends run on the first CPU, or the server on the second. Both CPUs are kept awake while a
    cell is measured that says so.
    """
    measured = []

    @contextlib.contextmanager
    def kept_awake(cpus, _):
        before = len(hold.asked)
        yield
        measured.append((cpus, [placed for _, placed in hold.asked[before:]]))

    monkeypatch.setattr(rounds, "kept_awake", kept_awake)
    hold(1, placement)
    assert measured == [(kept, [ends])] * len(PATHS)


def test_a_path_that_is_not_itself_is_not_measured(hold):
    """A failed parity check costs that path its rounds, no other path, and the run its success."""
    row, findings, asked = hold(2, failing={("parity", "device")})
    assert row.values["device"] == [None, None]
    assert None not in row.values["bypass"] + row.values["stock"]
    assert findings.failures[0] == "round 1: between nodes, device: 0 of 10 pings came back"
    assert "device" not in [name for name, _ in asked[-4:]]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ((parity, "complaint"), "between nodes, device"),
        ((witness, "read"), "between nodes, work, two CPUs, device"),
    ],
)
def test_an_end_out_of_reach_costs_its_rounds(hold, monkeypatch, part, said):
    """A host that is lost, or a namespace that is gone, is named; all that was measured is kept."""
    is_fine = getattr(*part)

    def looked(what):
        if "device" in str(what):
            raise ToolError("it can't be reached")
        return is_fine(what)

    monkeypatch.setattr(*part, looked)
    monkeypatch.setattr(witness, "complaint", lambda *_: "")
    checks = Ground.stand
    monkeypatch.setattr(
        Ground,
        "stand",
        lambda self, path, place: replace(checks(self, path, place), checks=(path,)),
    )
    row, findings, _ = hold(2)
    assert row.values["device"] == [None, None]
    assert None not in row.values["bypass"] + row.values["stock"]
    assert findings.failures == [f"round {turn}: {said}: it can't be reached" for turn in (1, 2)]


def test_a_failed_transfer_is_no_value(hold):
    """It is named with its round, place and path."""
    row, findings, _ = hold(1, failing={("work", "bypass")})
    assert row.values["bypass"] == [None]
    assert findings.failures == ["round 1: between nodes, work, two CPUs, bypass: nothing arrived"]
