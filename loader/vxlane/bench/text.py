# SPDX-License-Identifier: Apache-2.0
"""A run's document as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from vxlane.bench.document import BASELINES, SUBJECT, Json
from vxlane.bench.ratios import Verdict
from vxlane.show.table import table

NOTE = """\
AGAINST: how many times better the bypass is, in every row: the median of the rounds' ratios, and
their quartiles. ~: no result, for the spread is too wide, or there are fewer than five rounds."""


def text(document: Json) -> str:
    """Tables of the rows and of the programs, what was not run, and what failed."""
    rows = document["rows"]
    parts = [_rows(rows), NOTE] if rows else []
    if document["programs"]:
        parts.append(_programs(document["programs"]))
    if document["growth"]:
        parts.append(table(GROWTH_HEAD, growth_lines(document["growth"])))
    parts += _list("Not run:", [f"{one['what']}: {one['why']}" for one in document["not_run"]])
    parts += _list("Failed:", document["failures"])
    return "\n\n".join(parts)


def _rows(rows: Sequence[Json]) -> str:
    paths = [path for path in (SUBJECT, *BASELINES) if any(path in row["paths"] for row in rows)]
    against = [path for path in BASELINES if any(path in row["ratios"] for row in rows)]
    header = ["PLACE", "WORK", "ENDS ON", "FIGURE", "UNIT", *(path.upper() for path in paths)]
    header += [f"AGAINST {path.upper()}" for path in against]
    lines, last = [], ("", "", "")
    for row in rows:
        place, work, ends = row["place"], row["work"], row["placement"]
        head = [place, work, ends] if (place, work, ends) != last else ["", "", ""]
        if place == last[0]:
            head[0] = ""
        last = place, work, ends
        values = [
            shown(row["paths"][path]["median"]) if path in row["paths"] else "" for path in paths
        ]
        ratios = [ratio(row["ratios"][path]) if path in row["ratios"] else "" for path in against]
        lines.append([*head, row["figure"], row["unit"], *values, *ratios])
    return table(header, lines)


def shown(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(found: Json) -> str:
    """`1.23x (1.19-1.27)`, with a `~` in front if it is no result."""
    return ("" if Verdict(found["verdict"]).is_result else "~") + with_quartiles(found)


def with_quartiles(found: Json) -> str:
    """`1.23x (1.19-1.27)`: a ratio's median and quartiles."""
    low, high = found["quartiles"]
    return f"{found['median']:.2f}x ({low:.2f}-{high:.2f})"


def _programs(programs: Sequence[Json]) -> str:
    rows = [
        (
            one["path"],
            one["program"],
            one["packets"],
            shown(one["ns"]),
            f"{one['runs']:,}",
            one["how"],
        )
        for one in programs
    ]
    return table(("PATH", "PROGRAM", "PACKETS", "NS A PACKET", "RUNS", "HOW"), rows)


GROWTH_HEAD = ("AMONG", "FOUND", "PROGRAM", "NS A PACKET", "AGAINST THE FIRST SIZE", "VERDICT")


def growth_lines(grown: Sequence[Json]) -> list[list[str]]:
    """A line for each program at each size, under GROWTH_HEAD."""
    return [
        [
            f"{one['size']:,} {one['of']}",
            f"{one['found']:,}",
            one["program"],
            shown(one["ns"]),
            with_quartiles(one["against_first"]),
            one["verdict"],
        ]
        for one in grown
    ]


def _list(title: str, lines: Sequence[str]) -> list[str]:
    return ["\n".join([title, *(f"  {line}" for line in lines)])] if lines else []
