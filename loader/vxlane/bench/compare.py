# SPDX-License-Identifier: Apache-2.0
"""Two runs side by side: what became better or worse from the first to the second.

Ratios are compared and not values, for two runs are of two days, if not of two machines.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vxlane.bench.document import BASELINES, Json, key
from vxlane.bench.ratios import Verdict
from vxlane.bench.text import with_quartiles
from vxlane.show.table import table


class Change(enum.Enum):
    """What became of a ratio from one run to the other."""

    BETTER = "better"
    ALIKE = "within the spread"
    WORSE = "worse"
    UNKNOWN = "no result in one of them"


@dataclass(frozen=True, slots=True)
class Compared:
    """One ratio in both runs."""

    row: Json
    """As in the second run."""
    baseline: str
    first: Json
    second: Json
    change: Change


def compare(first: Json, second: Json) -> list[Compared]:
    """Every ratio that both runs have, in the order of the second."""
    return list(_compared(first, second))


def _compared(first: Json, second: Json) -> Iterator[Compared]:
    before = {key(row): row for row in first["rows"]}
    for row in second["rows"]:
        old = before.get(key(row), {"ratios": {}})
        for baseline in BASELINES:
            if baseline in old["ratios"] and baseline in row["ratios"]:
                pair = old["ratios"][baseline], row["ratios"][baseline]
                yield Compared(row, baseline, *pair, _change(*pair))


def _change(first: Json, second: Json) -> Change:
    """Different is only what lies beyond both spreads: the quartiles don't overlap."""
    if not all(Verdict(found["verdict"]).is_result for found in (first, second)):
        return Change.UNKNOWN
    if second["quartiles"][0] > first["quartiles"][1]:
        return Change.BETTER
    if second["quartiles"][1] < first["quartiles"][0]:
        return Change.WORSE
    return Change.ALIKE


def text(compared: Sequence[Compared], first: Json, second: Json) -> str:
    """A table, a line for each ratio, how many only one run has, and what else differs."""
    rows = [
        (
            one.row["place"],
            one.row["work"],
            one.row["figure"],
            one.row["placement"],
            one.baseline,
            with_quartiles(one.first),
            with_quartiles(one.second),
            one.change.value,
        )
        for one in compared
    ]
    header = ("PLACE", "WORK", "FIGURE", "ENDS ON", "AGAINST", "FIRST", "SECOND", "CHANGE")
    lines = [table(header, rows) if rows else "The two runs have no row in common."]
    alone = (
        len(_ratios(run) - _ratios(other)) for run, other in ((first, second), (second, first))
    )
    for count, which in zip(alone, ("first", "second"), strict=True):
        if count:
            lines.append(f"ratios that the {which} run alone has, left out: {count}")
    return "\n".join([*lines, *_differences(first, second)])


def _ratios(run: Json) -> set[tuple[str, ...]]:
    return {(*key(row), baseline) for row in run["rows"] for baseline in row["ratios"]}


def _differences(first: Json, second: Json) -> Iterator[str]:
    """What was not the same in both runs: how was measured, and on what."""
    before, now = ({**run["method"], **run["environment"]} for run in (first, second))
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            old, new = (found.get(name, "not told") for found in (before, now))
            yield f"{name}: {old} in the first, {new} now"
