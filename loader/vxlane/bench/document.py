# SPDX-License-Identifier: Apache-2.0
"""The document of a run: what `--json` writes, and what table, page and comparison read. Pure.

docs/json.md explains its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vxlane.bench.model import Missing, Row
from vxlane.bench.plan import BYPASS, KERNEL
from vxlane.bench.ratios import Ratio, Verdict, quartiles, ratio
from vxlane.errors import ConfigError

Json = dict[str, Any]

VERSION = 1
SUBJECT = BYPASS
BASELINES = ("stock", KERNEL, "flowtable", "device", "encap", "host")
"""What the subject is compared with, in this order."""
OWED = ("stock", KERNEL)
"""What the subject has to be no worse than. No run has both."""


def row_document(row: Row) -> Json:
    """Values, medians, and the subject's ratio to each other path."""
    found = {
        baseline: ratio(row.values[SUBJECT], row.values[baseline], row.figure.better)
        for baseline in BASELINES
        if SUBJECT in row.values and baseline in row.values
    }
    return {
        "place": row.place,
        "work": row.work,
        "placement": row.placement,
        "figure": row.figure.name,
        "unit": row.figure.unit,
        "better": row.figure.better.value,
        "paths": {path: _path_document(values) for path, values in row.values.items()},
        "ratios": {
            baseline: _ratio_document(compared)
            for baseline, compared in found.items()
            if compared is not None
        },
    }


def _path_document(values: Sequence[float | None]) -> Json:
    known = [value for value in values if value is not None]
    low, median, high = quartiles(known) if known else (None, None, None)
    return {
        "median": _short(median),
        "quartiles": [_short(low), _short(high)],
        "rounds": [_short(value) for value in values],
    }


def _ratio_document(found: Ratio) -> Json:
    return {
        "median": round(found.median, 3),
        "quartiles": [round(found.low, 3), round(found.high, 3)],
        "rounds": [round(value, 3) for value in found.rounds],
        "verdict": found.verdict.value,
    }


def _short(value: float | None) -> float | None:
    """Five significant digits: more would be noise."""
    return None if value is None else float(f"{value:.5g}")


def missing_documents(missing: Iterable[Missing]) -> list[Json]:
    """Each thing once, however often it was asked for."""
    return [{"what": one.what, "why": one.why} for one in dict.fromkeys(missing)]


def name(row: Json) -> str:
    """A row's name, for sentences."""
    return f"{row['place']}: {row['work']}, {row['figure']}, {row['placement']}"


def key(row: Json) -> tuple[str, str, str, str]:
    """What tells a row from all others of a run."""
    return row["place"], row["work"], row["placement"], row["figure"]


def slower(rows: Iterable[Json]) -> Iterator[str]:
    """A sentence for each row in which the subject is worse than it may be, beyond its spread."""
    for row in rows:
        for baseline in OWED:
            found = row["ratios"].get(baseline)
            if found and found["verdict"] == Verdict.WORSE.value:
                low, high = found["quartiles"]
                yield f"{name(row)}: {found['median']:.2f}x of {baseline} ({low:.2f}-{high:.2f})"


def read(text: Any, origin: str) -> Json:
    """A document that an earlier run wrote. ConfigError: it is none, or of another version."""
    if not isinstance(text, dict) or "rows" not in text or "version" not in text:
        raise ConfigError(f"{origin} is no document of vxlane bench --json")
    if text["version"] != VERSION:
        raise ConfigError(
            f"{origin} is of version {text['version']} and this reads {VERSION}; measure again"
        )
    return text
