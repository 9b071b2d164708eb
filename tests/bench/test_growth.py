# SPDX-License-Identifier: Apache-2.0
"""What the programs cost among more and more: measured in labs, and judged."""

from __future__ import annotations

import os
from types import SimpleNamespace

import benchdocument
import pytest

from vxlane.bench import flatness, growth, plan
from vxlane.bench.flatness import Flatness, Pair, Size
from vxlane.bench.grounds import Labs
from vxlane.bench.page import page
from vxlane.bench.plan import Depth
from vxlane.bench.run import Wanted, run
from vxlane.bench.text import text
from vxlane.errors import LabError

NAME = f"vxtest-{os.getpid()}-bench"


@pytest.fixture
def one_lab(_machine, monkeypatch):
    """Growth is measured in one small lab, which is the other one too."""
    asked = []
    made = Labs(f"{NAME}-one", lambda _: None)
    made.make([growth._CELL])

    def labs(name, _progress, options=()):
        asked.append((name, *options))
        return SimpleNamespace(
            labs=made.labs, stand=made.stand, make=lambda _: [], down=lambda: None
        )

    monkeypatch.setattr(growth, "Labs", labs)
    yield asked
    made.down()


def test_growth_is_real(one_lab, monkeypatch):
    """Programs are counted among as many peers, pods and flows as are said to be there."""
    monkeypatch.setattr(growth, "PEERS", (1, 300))
    monkeypatch.setattr(growth, "PODS", (2, 3))
    monkeypatch.setattr(growth, "FLOWS", (10, 20_000))
    wanted = Wanted(Depth.FULL, rounds=1, seconds=0.1, works=["growth"], name=NAME)
    found = run(wanted, lambda _: None)
    assert found["failures"] == []
    assert one_lab == [
        (f"{NAME}-grow", "--max-flows", "1048576"),
        (f"{NAME}-stay",),
    ]
    sizes = {
        (one["of"], one["size"]): one for one in found["growth"] if one["program"] == "from_pod"
    }
    assert list(sizes) == [
        *(("peers", 1), ("peers", 300)),
        *(("pods", 2), ("pods", 3)),
        *(("flows", 10), ("flows", 20_000)),
    ]
    for (_, size), one in sizes.items():
        assert size <= one["found"] < size + 50
        assert all(0 < ns < 100_000 for ns in one["rounds"][0])
    assert {one["program"] for one in found["growth"]} >= {"from_pod", "from_nic"}
    assert found["rows"] == []


class Rounds:
    """Stands where a lab's rounds do; its path is never right."""

    progress = staticmethod(lambda _: None)

    def await_parity(self, path, place, seconds):  # noqa: ARG002 (the rounds')
        """The complaint."""
        return "it was not"


def test_what_is_not_bypassed_is_not_measured(monkeypatch):
    """A complaint of a path ends the measurement, before anything is counted."""
    monkeypatch.setattr(growth.programs, "costs_of", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(LabError, match="no packet was bypassed to measure: it was not"):
        growth.Side(None, Rounds()).need_bypass()


@pytest.mark.parametrize(
    ("here", "verdict"),
    [
        ([600] * 5, Flatness.FLAT),
        ([300] * 5, Flatness.FLAT),
        ([650, 655, 650, 655, 650], Flatness.FLAT),
        ([700, 705, 700, 705, 700], Flatness.GROWS),
        ([500, 600, 650, 700, 720], Flatness.WIDE),
        ([600] * 4, Flatness.FEW),
    ],
)
def test_flat_is_within_ten_percent(here, verdict):
    """The upper quartile may be a tenth above the first size; only a cost above it grows."""
    first = Size("peers", 10, 10, {"from_pod": [Pair(600, 300)] * 5})
    later = Size("peers", 10_000, 10_000, {"from_pod": [Pair(ns, 300) for ns in here]})
    found = list(flatness.documents([first, later]))
    assert [one["verdict"] for one in found] == [Flatness.FIRST.value, verdict.value]
    said = list(flatness.failures(found))
    assert [line.split(":")[0] for line in said] == ["from_pod among 10,000 peers"] * (
        verdict is Flatness.GROWS
    )


def test_a_slower_minute_is_no_growth():
    """What slows both labs alike is not told of the size; flows may cost what they cost."""
    first = Size("flows", 10, 10, {"from_pod": [Pair(600, 300)] * 5, "to_nic": [Pair(1, 1)] * 5})
    slow = Size("flows", 99, 99, {"from_pod": [Pair(1200, 600)] * 5})
    (_, _, one) = flatness.documents([first, slow])
    assert (one["verdict"], one["ns"]) == (Flatness.FLAT.value, 1200)
    grown = Size("flows", 99, 99, {"from_pod": [Pair(900, 300)] * 5})
    found = list(flatness.documents([first, grown]))
    assert found[-1]["verdict"] == Flatness.GROWS.value
    assert list(flatness.failures(found)) == []


def test_flows_fit_into_memory():
    """Where two nodes' largest maps don't fit, the sizes that need them are left out and named."""
    assert growth.fitting(64 << 30) == (growth.FLOWS, [])
    flows, missing = growth.fitting(512 << 20)
    assert flows == growth.FLOWS[:-1]
    assert [one.what for one in missing] == ["1,000,000 flows"]
    assert "0.5 GB are free" in missing[0].why


def test_growth_is_asked_for():
    """It is part of a full run, or of one that names it, and never of a shorter one."""
    assert plan.grows(Depth.FULL, [])
    assert plan.grows(Depth.FULL, ["nginx", "Growth"])
    assert not plan.grows(Depth.FULL, ["nginx"])
    assert not plan.grows(Depth.DEFAULT, ["growth"])


def test_growth_is_shown():
    """Table and page have a line for each program at each size, with its verdict."""
    first = Size("peers", 10, 11, {"from_pod": [Pair(600, 300)] * 5})
    later = Size("peers", 10_000, 10_001, {"from_pod": [Pair(606, 300)] * 5})
    document = benchdocument.run(growth=list(flatness.documents([first, later])))
    (line,) = [line for line in text(document).splitlines() if line.startswith("10,000 peers")]
    assert line.split() == [
        *("10,000", "peers", "10,001", "from_pod", "606"),
        *("1.01x", "(1.01-1.01)", "flat", "within", "10", "%"),
    ]
    assert "<td>10,000 peers</td><td>10,001</td>" in page(document)
    assert "among more" not in page(benchdocument.run())
