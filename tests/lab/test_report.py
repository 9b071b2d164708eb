# SPDX-License-Identifier: Apache-2.0
"""What the demo makes of its figures."""

import pytest

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.records import Count
from vxlane.lab import report
from vxlane.lab.figure import Better, Figure
from vxlane.lab.report import DataPath, Findings

RATE = Figure("TCP, one flow", "Gbit/s", Better.MORE)
DELAY = Figure("ping, round trip", "us", Better.LESS)


def counters(bypassed, kernel):
    """So many packets that went either way."""
    counted = {program: dict.fromkeys(Verdict, Count(0, 0)) for program in Program}
    counted[Program.FROM_POD][Verdict.ENCAPSULATED] = Count(bypassed, 0)
    counted[Program.FROM_POD][Verdict.TCP_CONTROL] = Count(kernel, 0)
    return counted


def findings(bypassed, kernel, strays=0):
    """Rates and delays of three rounds, and what was counted during them.

    `strays` packets were bypassed while the kernel path was measured.
    """
    values = {
        (RATE, DataPath.KERNEL): [4.0, 5.0, 100.0],
        (RATE, DataPath.BYPASS): [1.0, 10.0, 11.0],
        (DELAY, DataPath.KERNEL): [60.0],
        (DELAY, DataPath.BYPASS): [30.0],
    }
    counted = {
        DataPath.BYPASS: [counters(bypassed, kernel)],
        DataPath.KERNEL: [counters(strays, 1000)],
    }
    return Findings("of two nodes", values, counted)


def test_medians_and_ratios():
    """Medians are compared, and a ratio above one is a better bypass, whatever is measured."""
    rate, delay = findings(96, 4).to_json()["measures"]
    assert (rate["kernel"], rate["bypass"], rate["ratio"]) == (5.0, 10.0, 2.0)
    assert (delay["kernel"], delay["bypass"], delay["ratio"]) == (60.0, 30.0, 2.0)
    assert rate["rounds"]["kernel"] == [4.0, 5.0, 100.0]


@pytest.mark.parametrize(("bypassed", "kernel"), [(95, 5), (1000, 0)])
def test_enough_was_bypassed(bypassed, kernel):
    """From 95 % of the TCP packets on the demo is a success."""
    assert report.failures([findings(bypassed, kernel).to_json()]) == []


@pytest.mark.parametrize(("bypassed", "kernel", "said"), [(94, 6, "94.0%"), (0, 0, "0.0%")])
def test_too_little_was_bypassed(bypassed, kernel, said):
    """Below 95 %, or when nothing was counted at all, the failure names pair and share."""
    (sentence,) = report.failures([findings(bypassed, kernel).to_json()])
    assert sentence == f"of two nodes: {said} of the TCP packets were bypassed, less than 95%"


def test_the_kernel_path_must_be_one():
    """A packet that was bypassed while the kernel path was measured makes the figures worthless."""
    (sentence,) = report.failures([findings(100, 0, strays=1).to_json()])
    assert sentence == ("of two nodes: 1 packets were bypassed while the kernel path was measured")


@pytest.mark.parametrize(
    ("figure", "kernel", "bypass", "is_worse"),
    [
        (RATE, [7.0, 8.0, 9.0], [2.0, 3.0, 4.0], True),
        (RATE, [6.0, 7.0, 8.0], [2.0, 3.0, 4.0], False),
        (RATE, [2.0, 3.0, 4.0], [7.0, 8.0, 9.0], False),
        (DELAY, [2.0, 3.0, 4.0], [7.0, 8.0, 9.0], True),
        (DELAY, [2.0, 3.0, 4.0], [5.0, 8.0, 9.0], False),
        (DELAY, [2.0, 3.0], [7.0, 8.0], False),
    ],
    ids=["rate", "rate-within", "rate-better", "delay", "delay-within", "two-rounds"],
)
def test_no_row_is_below_the_kernel_path(figure, kernel, bypass, is_worse):
    """A row that is worse by more than the rounds of either path differ is a failure."""
    values = {(figure, DataPath.KERNEL): kernel, (figure, DataPath.BYPASS): bypass}
    found = Findings("of two nodes", values, findings(96, 4).tcp_counters).to_json()
    ratio = found["measures"][0]["ratio"]
    said = (
        f"of two nodes: {figure.name} is {ratio:.2f}x of the kernel path,"
        " by more than its rounds differ"
    )
    assert report.failures([found]) == ([said] if is_worse else [])


def test_table():
    """A line per measure, the pair named once, the share beside TCP only."""
    assert report.text([findings(96, 4).to_json()]).splitlines() == [
        "BETWEEN PODS  TRAFFIC           KERNEL PATH  BYPASS          BETTER  BYPASSED",
        "of two nodes  TCP, one flow             5.0    10.0  Gbit/s  2.00x   96.0%",
        "              ping, round trip         60.0    30.0  us      2.00x",
    ]
