# SPDX-License-Identifier: Apache-2.0
"""The document of a run, and two of them compared."""

from __future__ import annotations

import json

import pytest
from benchdocument import P50, row, run

from vxlane.bench import compare, document
from vxlane.bench.compare import Change
from vxlane.bench.model import Missing
from vxlane.bench.text import text
from vxlane.cli.bench import bench as command
from vxlane.errors import ConfigError

FASTER = {"stock": [1.0] * 5, "bypass": [1.3, 1.31, 1.32, 1.33, 1.34], "host": [2.0] * 5}
SLOWER = {"stock": [1.0] * 5, "bypass": [0.8, 0.81, 0.82, 0.83, 0.84]}
WIDE = {"stock": [1.0] * 5, "bypass": [0.2, 0.3, 0.5, 0.9, 1.4]}


def test_the_subject_is_compared_with_each_path():
    """A row has the values of all paths, and the ratio of the bypass to each other one."""
    found = row(FASTER)
    assert found["paths"]["stock"] == {"median": 1, "quartiles": [1, 1], "rounds": [1] * 5}
    assert found["ratios"]["stock"]["median"] == 1.32
    assert found["ratios"]["host"]["quartiles"] == [0.655, 0.665]
    assert list(found["ratios"]) == ["stock", "host"]


def test_a_row_below_stock_is_a_failure():
    """Slower than stock by more than the spread is named; slower than host, or unclear, is not."""
    (sentence,) = document.slower([row(FASTER), row(SLOWER), row(WIDE)])
    assert (
        sentence == "between nodes: TCP, 1 flow, throughput, two CPUs: 0.82x of stock (0.81-0.83)"
    )


def test_a_row_below_the_kernel_path_is_a_failure():
    """Where the two paths of one pair of nodes were measured, that is what it is compared with."""
    (sentence,) = document.slower([row({**SLOWER, "kernel": SLOWER["stock"], "stock": [0.1] * 5})])
    assert "0.82x of kernel" in sentence


def test_what_was_not_run_is_told_once():
    """However many cells a missing tool leaves out."""
    missing = [Missing("nginx", "no wrk"), Missing("nginx", "no wrk")]
    assert document.missing_documents(missing) == [{"what": "nginx", "why": "no wrk"}]


def test_the_table_marks_what_is_no_result():
    """An unclear ratio has a mark in front; a place is named once."""
    shown = text(run(row(FASTER), row(WIDE, P50)))
    assert "1.32x (1.31-1.33)" in shown
    assert "~2.00x" in shown
    assert shown.count("between nodes") == 1


def test_the_table_names_what_is_missing():
    """What failed, what was not run and what programs cost stand below the rows."""
    cost = {"path": "bypass", "program": "from_pod", "packets": "UDP", "ns": 310.4}
    cost |= {"runs": 12000, "how": "test run"}
    missing = [{"what": "nginx", "why": "wrk is not installed"}]
    shown = text(run(row(FASTER), programs=[cost], not_run=missing, failures=["it broke"]))
    assert {"from_pod", "310", "12,000"} <= set(shown.split())
    assert "nginx: wrk is not installed" in shown
    assert "Failed:\n  it broke" in shown


@pytest.mark.parametrize(
    ("first", "second", "change"),
    [
        (SLOWER, FASTER, Change.BETTER),
        (FASTER, SLOWER, Change.WORSE),
        (FASTER, FASTER, Change.ALIKE),
        (FASTER, WIDE, Change.UNKNOWN),
    ],
)
def test_two_runs_differ_beyond_their_spreads(first, second, change):
    """A ratio is better or worse than in the first run if the quartiles of both don't overlap."""
    compared = compare.compare(run(row(first)), run(row(second)))
    assert [(one.baseline, one.change) for one in compared if one.baseline == "stock"] == [
        ("stock", change)
    ]


def test_a_comparison_tells_what_differs_between_the_machines():
    """Ratios that only one run has are left out and counted, also those that failed in the second;
    another kernel is named, and another length of the measurements.
    """
    failed = {path: [None] * len(values) for path, values in FASTER.items()}
    first = run(row(SLOWER), row(SLOWER, work="UDP"))
    second = run(row(FASTER), row(failed, work="UDP"), row(FASTER, place="on one node"))
    first["environment"]["iperf3"] = "3.12"
    second["environment"] = {"kernel": "6.1", "CPU": "2 x <i>one</i>"}
    second["method"] = {"rounds": 5, "seconds": 0.1, "depth": "default"}
    shown = compare.text(compare.compare(first, second), first, second)
    assert "0.82x (0.81-0.83)  1.32x (1.31-1.33)  better" in shown
    assert "on one node" not in shown
    assert shown.splitlines()[-5:] == [
        "ratios that the first run alone has, left out: 1",
        "ratios that the second run alone has, left out: 3",
        "seconds: 1.0 in the first, 0.1 now",
        "kernel: 6.18 in the first, 6.1 now",
        "iperf3: 3.12 in the first, not told now",
    ]
    nothing = compare.text(compare.compare(run(), run()), run(), run())
    assert nothing == "The two runs have no row in common."


@pytest.mark.parametrize(
    "parts", [{"rows": [{}]}, {"rows": 5}, {"rows": [row(FASTER) | {"ratios": {"stock": 1}}]}]
)
def test_a_damaged_document_is_refused(parts, tmp_path):
    """What a comparison would stumble over is told by its file."""
    whole, damaged = tmp_path / "whole.json", tmp_path / "damaged.json"
    whole.write_text(json.dumps(run(row(FASTER))))
    damaged.write_text(json.dumps(run(**parts)))
    with pytest.raises(ConfigError, match=r"damaged.json is damaged; write it with"):
        command.main(["compare", str(whole), str(damaged)], standalone_mode=False)


def test_another_document_is_refused():
    """A file of another program or version is named, with what to do."""
    assert document.read(json.loads(json.dumps(run())), "a.json")["rows"] == []
    with pytest.raises(ConfigError, match=r"a.json is no document of vxlane bench"):
        document.read({"pairs": []}, "a.json")
    with pytest.raises(ConfigError, match=r"a.json is of version 0 .* measure again"):
        document.read(run(version=0), "a.json")
