# SPDX-License-Identifier: Apache-2.0
"""How many times better, and when that is a result."""

from __future__ import annotations

import pytest

from vxlane.bench.ratios import Verdict, quartiles, ratio
from vxlane.lab.figure import Better

STEADY = [100.0] * 5


def test_rounds_are_paired():
    """Both paths slow down together from round to round, and their ratio stays."""
    stock = [10.0, 5.0, 8.0, 2.0, 9.0]
    found = ratio([2 * value for value in stock], stock, Better.MORE)
    assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.verdict is Verdict.BETTER


def test_more_is_better_in_every_row():
    """Half the latency is as much better as twice the throughput."""
    assert ratio([50.0] * 5, STEADY, Better.LESS).median == 2.0
    assert ratio([200.0] * 5, STEADY, Better.MORE).median == 2.0


def test_some_figures_are_not_compared():
    """What only explains has no ratio."""
    assert ratio(STEADY, STEADY, Better.NEITHER) is None


@pytest.mark.parametrize(
    ("values", "verdict", "is_result"),
    [
        ([110, 111, 112, 113, 114], Verdict.BETTER, True),
        ([98, 99, 100, 101, 102], Verdict.ALIKE, True),
        ([96, 97, 98, 99, 103], Verdict.ALIKE, True),
        ([88, 89, 90, 91, 92], Verdict.WORSE, True),
        ([50, 60, 80, 120, 300], Verdict.WIDE, False),
        ([10, 11, 12, 13], Verdict.FEW, False),
    ],
)
def test_a_verdict_heeds_the_spread(values, verdict, is_result):
    """Better and worse are beyond the spread, and a wide spread or few rounds are no result."""
    found = ratio([float(value) for value in values], STEADY[: len(values)], Better.MORE)
    assert found.verdict is verdict
    assert verdict.is_result == is_result


def test_a_round_without_a_value_is_left_out():
    """A failed measurement takes its pair along, and no other round."""
    subject, baseline = [2.0, None, 2.0, 8.0], [1.0, 1.0, 1.0, 0.0]
    assert ratio(subject, baseline, Better.MORE).rounds == (2.0, 2.0)
    assert ratio([None], [1.0], Better.MORE) is None


def test_quartiles_of_five():
    """They are the second, third and fourth of five values."""
    assert quartiles([5, 1, 4, 2, 3]) == (2, 3, 4)
    assert quartiles([7]) == (7, 7, 7)
