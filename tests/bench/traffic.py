# SPDX-License-Identifier: Apache-2.0
"""`scripts/bench traffic [--rounds N] [--seconds S] [--json]`: against a stock cluster.

Two labs stand side by side: one of vxlane, and one of nodes as flannel leaves them, with no program
of vxlane's anywhere. Each kind of traffic runs in both, in turns, between two nodes, on one node
and through a Service. A figure is the median of the rounds' ratios, vxlane to stock, with its
quartiles; more is better. Exit status 1 if a row's upper quartile is below 1.0, or a Service's is
more than 5 % below the direct one's or has less than 99 % bypassed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import leftovers
from labundertest import LabUnderTest

from vxlane.lab import lab as labs
from vxlane.lab import service, traffic
from vxlane.lab.traffic import Ends

ROUNDS, SECONDS = 5, 2.0
LEAST_SHARE, LEAST_OF_DIRECT = 0.99, 0.95


@dataclass(frozen=True)
class Work:
    """Traffic that gives a figure; `is_long`: nearly all of its packets can be bypassed."""

    name: str
    run: Callable[[Ends, float], float]
    is_long: bool = True


def latency(ends: Ends, seconds: float) -> float:
    """Transactions a second of one ping-pong, so that more is better."""
    return 1e6 / traffic.latency(ends, seconds=seconds)


WORKS = (
    Work("TCP, one flow", lambda ends, seconds: traffic.tcp(ends, seconds=seconds)),
    Work("UDP, 64 bytes", lambda ends, seconds: traffic.udp(ends, seconds=seconds)),
    Work("request and response", latency),
    Work(
        "short connections",
        lambda ends, seconds: traffic.connections(ends, seconds=seconds),
        is_long=False,
    ),
)
PLACES = ("between nodes", "on one node", "through a Service")


@dataclass
class Row:
    """What was measured of one work at one place: a ratio and a share for each round."""

    place: str
    work: Work
    ratios: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """Median and quartiles of the ratios, median of the shares bypassed."""
        low, median, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return {
            "place": self.place,
            "work": self.work.name,
            "ratio": round(median, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "rounds": [round(ratio, 3) for ratio in self.ratios],
            "share": round(statistics.median(self.shares), 4),
        }


def ends(lab: LabUnderTest, place: str) -> Ends:
    """Who talks to whom there."""
    target = "node1-pod2" if place == "on one node" else "node2-pod1"
    address = str(service.VIRTUAL) if place == "through a Service" else lab.address(target)
    return Ends(lab.netns("node1-pod1"), lab.netns(target), address)


def measure(row: Row, vxlane: LabUnderTest, stock: LabUnderTest, seconds: float, turn: int) -> None:
    """One round of a row: both labs, whoever's turn it is first."""
    found = {}
    for lab in (vxlane, stock) if turn % 2 == 0 else (stock, vxlane):
        if lab is stock:
            found["stock"] = row.work.run(ends(lab, row.place), seconds)
            continue
        before = lab.shares("node1")["total"]
        found["vxlane"] = row.work.run(ends(lab, row.place), seconds)
        after = lab.shares("node1")["total"]
        moved = {key: after[key] - before[key] for key in ("bypassed", "packets")}
        row.shares.append(moved["bypassed"] / moved["packets"])
    row.ratios.append(found["vxlane"] / found["stock"])


def failures(rows: list[dict[str, object]]) -> list[str]:
    """What misses its budget, a line each."""
    by_name = {(row["place"], row["work"]): row for row in rows}
    found = []
    for row in rows:
        name = f"{row['place']}: {row['work']}"
        if row["quartiles"][1] < 1.0:
            found.append(f"{name}: {row['ratio']}x of stock")
        if row["place"] != "through a Service":
            continue
        direct = by_name["between nodes", row["work"]]
        if row["quartiles"][1] < direct["ratio"] * LEAST_OF_DIRECT:
            found.append(f"{name}: {row['ratio']}x, and {direct['ratio']}x without the Service")
        if row["work"] != "short connections" and row["share"] < LEAST_SHARE:
            found.append(f"{name}: {row['share']:.1%} bypassed")
    return found


def main() -> None:
    """Measure all rows, print them, and say whether the budgets are met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    leftovers.remove("bench")
    name = f"bench-{os.getpid()}"
    rows = [Row(place, work) for place in PLACES for work in WORKS]
    try:
        vxlane = LabUnderTest(labs.up(name, nodes=2, pods_per_node=2, kernel_only=0))
        stock = LabUnderTest(labs.up(f"{name}-stock", nodes=2, pods_per_node=2, kernel_only=2))
        for lab in (vxlane, stock):
            service.provide(lab.netns("node1"), lab.pod("node2-pod1").address)
        for turn in range(options.rounds):
            print(f"bench: round {turn + 1} of {options.rounds}", file=sys.stderr)
            for row in rows:
                measure(row, vxlane, stock, options.seconds, turn)
    finally:
        labs.down(name)
        labs.down(f"{name}-stock")
    found = [row.document() for row in rows]
    missed = failures(found)
    if options.json:
        print(json.dumps({"rows": found, "missed": missed}, indent=2))
    else:
        for row in found:
            low, high = row["quartiles"]
            print(
                f"{row['place']:18} {row['work']:21} {row['ratio']:5.2f}x ({low:.2f}-{high:.2f}),"
                f" {row['share']:.1%} bypassed"
            )
        print(*missed, sep="\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
