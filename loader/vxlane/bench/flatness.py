# SPDX-License-Identifier: Apache-2.0
"""Whether a packet costs a program more where there is more of something. Pure.

A machine is faster in one minute than in the next. So each cost is taken beside that in another
lab, in which nothing grows, and it is their ratio that is compared between sizes.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vxlane.bench.document import Json
from vxlane.bench.ratios import FEWEST, quartiles

MOST = 1.1
"""A cost of more than this many times that of the first size is no longer the same."""
OWED = ("peers", "pods")
"""What the programs are to be flat in."""


class Flatness(enum.Enum):
    """What became of a program's cost from the first size to this one."""

    FIRST = "the first size"
    FLAT = "flat within 10 %"
    GROWS = "grows"
    WIDE = "spread too wide"
    FEW = "too few rounds"


@dataclass(frozen=True, slots=True)
class Pair:
    """What a packet cost a program in one round, ns: here, and in the lab that stays as it is."""

    here: float
    there: float


@dataclass(frozen=True, slots=True)
class Size:
    """The costs at one size."""

    of: str
    wanted: int
    found: int
    """How many the programs had, on the node that had the fewest."""
    costs: Mapping[str, Sequence[Pair]]
    """By program, each round."""


def documents(sizes: Sequence[Size]) -> Iterator[Json]:
    """A document for each program at each size. `sizes` are of one thing, the first one first."""
    first = sizes[0]
    for size in sizes:
        for program, pairs in size.costs.items():
            if program in first.costs:
                yield _document(size, program, pairs, first.costs[program])


def _document(size: Size, program: str, pairs: Sequence[Pair], first: Sequence[Pair]) -> Json:
    base = statistics.median(pair.here / pair.there for pair in first)
    rounds = [pair.here / pair.there / base for pair in pairs]
    low, median, high = quartiles(rounds)
    verdict = Flatness.FIRST if pairs is first else judge(len(rounds), low, high)
    return {
        "of": size.of,
        "size": size.wanted,
        "found": size.found,
        "program": program,
        "ns": round(statistics.median(pair.here for pair in pairs), 1),
        "rounds": [[round(pair.here, 1), round(pair.there, 1)] for pair in pairs],
        "against_first": {
            "median": round(median, 3),
            "quartiles": [round(low, 3), round(high, 3)],
        },
        "verdict": verdict.value,
    }


def judge(rounds: int, low: float, high: float) -> Flatness:
    """By the quartiles of the rounds' ratios to the first size. To become cheaper is no fault."""
    if rounds < FEWEST:
        return Flatness.FEW
    if high <= MOST:
        return Flatness.FLAT
    return Flatness.GROWS if low > MOST else Flatness.WIDE


def failures(found: Sequence[Json]) -> Iterator[str]:
    """A sentence for each program whose cost grows with what it is to be flat in."""
    for one in found:
        if one["of"] in OWED and one["verdict"] == Flatness.GROWS.value:
            low, high = one["against_first"]["quartiles"]
            yield (
                f"{one['program']} among {one['size']:,} {one['of']}:"
                f" {one['against_first']['median']:.2f}x of its cost among the fewest"
                f" ({low:.2f}-{high:.2f}), and it is to be flat within 10 %"
            )
