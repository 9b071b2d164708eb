# SPDX-License-Identifier: Apache-2.0
"""Plots of a run as inline SVG: ratios with their spread, and the values of every round. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from vxlane.bench.document import BASELINES, SUBJECT, Json
from vxlane.bench.ratios import Verdict

COLOURS = {
    SUBJECT: "#d9480f",
    "stock": "#1971c2",
    "kernel": "#1971c2",
    "flowtable": "#9c36b5",
    "device": "#2f9e44",
    "encap": "#66a80f",
    "host": "#868e96",
}
_WIDTH, _LABELS, _RIGHT = 960, 380, 110
_LINE, _TOP, _BOTTOM = 15, 26, 8
_LEAST, _MOST = 0.25, 4.0
"""A bar that goes on beyond is cut off: one wild row would squeeze all others."""
_TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)
_STRIP_WIDTH, _STRIP_LABELS, _STRIP_RIGHT = 620, 80, 90


def ratios(rows: Sequence[Json]) -> str:
    """A line for each ratio of `rows` on a logarithmic scale: median as a dot, quartiles as a bar.

    What is no result is a hollow dot. Empty where no row has a ratio.
    """
    lines = [
        (row, baseline, row["ratios"][baseline])
        for row in rows
        for baseline in BASELINES
        if baseline in row["ratios"]
    ]
    if not lines:
        return ""
    ends = [quartile for _, _, found in lines for quartile in found["quartiles"]]
    least, most = max(_LEAST, min(0.75, *ends)), min(_MOST, max(1.5, *ends))
    span = math.log(most / least)

    def x(value: float) -> float:
        within = min(max(value, least), most)
        return _LABELS + math.log(within / least) / span * (_WIDTH - _LABELS - _RIGHT)

    height = _TOP + _LINE * len(lines) + _BOTTOM
    parts = [_open(_WIDTH, height, "ratios")]
    for tick in _TICKS:
        if least <= tick <= most:
            one = " one" if tick == 1 else ""
            parts.append(_rule(x(tick), _TOP - 6, height - _BOTTOM, f"grid{one}"))
            parts.append(_text(x(tick), 12, f"{tick:g}x", "axis", "middle"))
    last = None
    for number, (row, baseline, found) in enumerate(lines):
        y = _TOP + _LINE * number + _LINE / 2
        if row is not last:
            label = f"{row['work']}, {row['figure']}, {row['placement']}"
            parts.append(_text(_LABELS - 10, y + 4, label, "label", "end"))
        last = row
        parts += _ratio(x, y, baseline, found)
    return "".join([*parts, "</svg>"])


def _ratio(x: object, y: float, baseline: str, found: Json) -> Iterator[str]:
    assert callable(x)
    low, high = found["quartiles"]
    colour = COLOURS[baseline]
    is_result = Verdict(found["verdict"]).is_result
    fill = colour if is_result else "none"
    yield (
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"'
        f' stroke-width="3" stroke-opacity="{0.6 if is_result else 0.25}"/>'
        f'<circle cx="{x(found["median"]):.1f}" cy="{y:.1f}" r="4" fill="{fill}"'
        f' stroke="{colour}"><title>{escape(_told(baseline, found))}</title></circle>'
    )
    word = f"{found['median']:.2f}x {baseline}" if is_result else f"unclear, {baseline}"
    yield _text(_WIDTH - _RIGHT + 8, y + 4, word, "value", "start")


def _told(baseline: str, found: Json) -> str:
    low, high = found["quartiles"]
    return (
        f"against {baseline}: {found['median']:.2f}x ({low:.2f}-{high:.2f}), {found['verdict']};"
        f" rounds {', '.join(f'{value:.2f}' for value in found['rounds'])}"
    )


def values(paths: Mapping[str, Json], unit: str) -> str:
    """A strip for each path: rounds as dots, quartiles as a box, the median as a line."""
    known = [value for found in paths.values() for value in found["rounds"] if value is not None]
    most = max(known, default=0) * 1.02 or 1
    height = _TOP + 20 * len(paths) + _BOTTOM

    def x(value: float) -> float:
        return _STRIP_LABELS + value / most * (_STRIP_WIDTH - _STRIP_LABELS - _STRIP_RIGHT)

    parts = [_open(_STRIP_WIDTH, height, "values")]
    parts.append(_text(x(0), 12, "0", "axis", "middle"))
    parts.append(_text(x(most), 12, f"{most:.3g} {unit}", "axis", "middle"))
    for number, (path, found) in enumerate(paths.items()):
        y = _TOP + 20 * number
        parts.append(_text(_STRIP_LABELS - 8, y + 12, path, "label", "end"))
        parts.append(_rule(x(0), y, y + 16, "grid"))
        if found["median"] is None:
            continue
        colour, (low, high) = COLOURS[path], found["quartiles"]
        parts.append(
            f'<rect x="{x(low):.1f}" y="{y + 2}" width="{max(1, x(high) - x(low)):.1f}" height="12"'
            f' fill="{colour}" fill-opacity="0.25"/>'
        )
        parts += [
            f'<circle cx="{x(value):.1f}" cy="{y + 8}" r="2.5" fill="{colour}" fill-opacity="0.6"/>'
            for value in found["rounds"]
            if value is not None
        ]
        parts.append(_rule(x(found["median"]), y, y + 16, "median"))
        parts.append(
            _text(_STRIP_WIDTH - _STRIP_RIGHT + 8, y + 12, f"{found['median']:.4g}", "value")
        )
    return "".join([*parts, "</svg>"])


def _open(width: int, height: float, kind: str) -> str:
    return f'<svg class="{kind}" viewBox="0 0 {width} {height:.0f}" role="img" width="{width}">'


def _rule(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
