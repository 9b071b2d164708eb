# SPDX-License-Identifier: Apache-2.0
"""Histograms: their slots, quantiles and powers of two."""

import itertools

import pytest
from profilefigures import counts

from vxlane.profile import legs


def test_slots_follow_one_another():
    """Each slot begins where the one before ends, and none is wider than a quarter of it."""
    bounds = [legs.bounds(slot) for slot in range(legs.SLOTS)]
    assert bounds[0] == (0, 1)
    assert all(one[1] == following[0] for one, following in itertools.pairwise(bounds))
    assert all(high - low <= max(1, low / 4) for low, high in bounds)
    assert bounds[-1][1] == 1 << 37


@pytest.mark.parametrize(
    ("histogram", "share", "value"),
    [
        (counts(), 0.5, None),
        (counts(s40=1), 1.0, legs.bounds(40)[1]),
        (counts(s40=2), 0.5, sum(legs.bounds(40)) / 2),
        (counts(s40=9, s60=1), 0.9, legs.bounds(40)[1]),
        (counts(s40=9, s60=1), 1.0, legs.bounds(60)[1]),
    ],
)
def test_quantiles(histogram, share, value):
    """A quantile lies in the slot that holds it, by its share of that slot's counts."""
    assert legs.quantile(histogram, share) == value


def test_powers_of_two():
    """Four slots make one power of two, and no count is lost."""
    bars = list(legs.octaves(counts(s1=1, s40=2, s43=3, s44=4)))
    assert [bar for bar in bars if bar[2]] == [(0, 4, 1), (2048, 4096, 5), (4096, 8192, 4)]
    assert all(one[1] == following[0] for one, following in itertools.pairwise(bars))
