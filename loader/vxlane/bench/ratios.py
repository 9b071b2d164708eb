# SPDX-License-Identifier: Apache-2.0
"""How many times better one path is than another, and whether the rounds bear that out. Pure.

Both paths are measured in each round, one right after the other. So their ratio is taken round by
round: what slows the machine for a while slows both. The result is the median of these ratios, and
its spread is their interquartile range.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vxlane.lab.figure import Better

FEWEST = 5
"""With fewer rounds quartiles mean nothing."""
WIDEST = 0.25
"""The widest spread of a result, as a share of its median."""


class Verdict(enum.Enum):
    """What a ratio says."""

    BETTER = "better"
    ALIKE = "alike"
    WORSE = "worse"
    WIDE = "spread too wide"
    FEW = "too few rounds"

    @property
    def is_result(self) -> bool:
        """Whether the figure may be quoted."""
        return self not in (Verdict.WIDE, Verdict.FEW)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One path against another; more is better whatever the figure is."""

    rounds: tuple[float, ...]
    median: float
    low: float
    """The lower quartile."""
    high: float
    verdict: Verdict


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of one value or more."""
    if len(values) == 1:
        return (values[0],) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def ratio(
    subject: Sequence[float | None], baseline: Sequence[float | None], better: Better
) -> Ratio | None:
    """`subject` against `baseline`, both by round. None: the figure is not one to compare by, or no
    round has both. A round without a value, or with one of 0, is left out.
    """
    if better is Better.NEITHER:
        return None
    rounds = []
    for mine, other in zip(subject, baseline, strict=True):
        if mine and other:
            rounds.append(mine / other if better is Better.MORE else other / mine)
    if not rounds:
        return None
    low, median, high = quartiles(rounds)
    return Ratio(tuple(rounds), median, low, high, _verdict(len(rounds), low, median, high))


def _verdict(count: int, low: float, median: float, high: float) -> Verdict:
    """Better and worse are only what is away from 1 by more than the spread."""
    spread = high - low
    if count < FEWEST:
        return Verdict.FEW
    if spread > WIDEST * median:
        return Verdict.WIDE
    if median + spread < 1:
        return Verdict.WORSE
    return Verdict.BETTER if median - spread > 1 else Verdict.ALIKE
