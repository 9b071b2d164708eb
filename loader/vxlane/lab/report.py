# SPDX-License-Identifier: Apache-2.0
"""The demo's results as a document and as a table, and whether they are a success."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vxlane.datapath.shares import Counters
from vxlane.lab.figure import Better, Figure
from vxlane.show import documents
from vxlane.show.table import table

Json = dict[str, Any]

REQUIRED_SHARE = 0.95
"""The share of a bypass round's TCP packets that must have been bypassed. The other packets open,
close and revalidate connections, which the kernel must see."""

_ROUNDS_FOR_A_SPREAD = 3


class DataPath(enum.Enum):
    """The path of a measurement's packets."""

    KERNEL = "kernel"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured between two pods."""

    pair: str
    values: dict[tuple[Figure, DataPath], list[float]] = field(default_factory=dict)
    """One per round, in the figure's unit."""
    tcp_counters: dict[DataPath, list[Counters]] = field(default_factory=dict)
    """The nodes' counters of the TCP measurements on each path."""

    def to_json(self) -> Json:
        """Medians, ratios and the share; `ratio` is how many times better the bypass is."""
        figures = dict.fromkeys(figure for figure, _ in self.values)
        return {
            "pair": self.pair,
            "measures": [self._measure(figure) for figure in figures],
            "tcp_packets": {path.value: self._packets(path) for path in DataPath},
        }

    def _packets(self, path: DataPath) -> Json:
        counted = documents.add(self.tcp_counters.get(path, []))
        packets: Json = documents.bypassed_document(counted)["total"]
        return packets

    def _measure(self, figure: Figure) -> Json:
        rounds = {path.value: self.values[figure, path] for path in DataPath}
        kernel, bypass = (statistics.median(values) for values in rounds.values())
        better, worse = (bypass, kernel) if figure.better is Better.MORE else (kernel, bypass)
        return {
            "name": figure.name,
            "unit": figure.unit,
            "better": figure.better.value,
            "kernel": round(kernel, 3),
            "bypass": round(bypass, 3),
            "ratio": round(better / worse, 3),
            "rounds": {path: [round(v, 3) for v in values] for path, values in rounds.items()},
        }


def failures(pairs: Iterable[Json]) -> list[str]:
    """Why these pairs' documents are no success; empty: they are."""
    return [sentence for pair in pairs for sentence in _failures(pair)]


def _failures(pair: Json) -> Iterator[str]:
    for measure in pair["measures"]:
        if _is_worse(measure):
            yield (
                f"{pair['pair']}: {measure['name']} is {measure['ratio']:.2f}x of the kernel path,"
                " by more than its rounds differ"
            )
    packets = pair["tcp_packets"]
    share = packets[DataPath.BYPASS.value]["share"] or 0
    if share < REQUIRED_SHARE:
        yield (
            f"{pair['pair']}: {share:.1%} of the TCP packets were bypassed,"
            f" less than {REQUIRED_SHARE:.0%}"
        )
    if strays := packets[DataPath.KERNEL.value]["bypassed"]:
        yield f"{pair['pair']}: {strays} packets were bypassed while the kernel path was measured"


def _is_worse(measure: Json) -> bool:
    """Whether the bypass is below the kernel path by more than either differs from itself.

    Of one round, or two, nobody can tell. That all of three rounds are worse happens by chance in
    one of twenty rows, so the gap between them has to be wider than either's spread.
    """
    kernel, bypass = (measure["rounds"][path.value] for path in DataPath)
    if len(kernel) < _ROUNDS_FOR_A_SPREAD:
        return False
    spread = max(max(rounds) - min(rounds) for rounds in (kernel, bypass))
    if measure["better"] == Better.MORE.value:
        return bool(min(kernel) - max(bypass) > spread)
    return bool(min(bypass) - max(kernel) > spread)


def text(pairs: Sequence[Json]) -> str:
    """One table, a line per pair and measure; the share of TCP packets beside the TCP lines."""
    rows: list[Sequence[object]] = []
    for pair in pairs:
        name = pair["pair"]
        share = f"{pair['tcp_packets'][DataPath.BYPASS.value]['share'] or 0:.1%}"
        for measure in pair["measures"]:
            is_tcp = measure["name"].startswith("TCP")
            rows.append(
                (
                    name,
                    measure["name"],
                    _figure(measure["kernel"]),
                    _figure(measure["bypass"]),
                    measure["unit"],
                    f"{measure['ratio']:.2f}x",
                    share if is_tcp else "",
                )
            )
            name = ""
    header = ("BETWEEN PODS", "TRAFFIC", "KERNEL PATH", "BYPASS", "", "BETTER", "BYPASSED")
    return table(header, rows)


def _figure(value: float) -> float:
    return round(value, 1)
