# SPDX-License-Identifier: Apache-2.0
"""Histograms as inline SVG, bypass and kernel path above one another on one scale. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape

from vxlane.profile.document import Json, axis
from vxlane.profile.legs import Path

COLOURS = {Path.BYPASS: "#d9480f", Path.KERNEL: "#1971c2"}
_WIDTH, _LEFT, _RIGHT = 720, 70, 10
_TOP, _STRIP, _GAP, _BOTTOM = 6, 90, 14, 34
_WIDEST = 90
"""Of a bar: one that has no neighbours would fill the plot."""


def histograms(paths: Mapping[str, Json], key: str, name: Callable[[int], str]) -> str:
    """A strip for each path with packets: a bar for each power of two, as high as their share.

    `key`: which histogram of the figures; `name`: of a bar's lower bound, for the axis.
    """
    bounds = [*axis(paths, key)]
    lows = [low for low, _ in bounds]
    drawn = [path for path in Path if paths[path.label][key]]
    height = _TOP + len(drawn) * _STRIP + (len(drawn) - 1) * _GAP + _BOTTOM
    parts = [f'<svg class="histogram" viewBox="0 0 {_WIDTH} {height}" role="img" width="{_WIDTH}">']
    width = _width(len(lows))
    for number, path in enumerate(drawn):
        floor = _TOP + number * (_STRIP + _GAP) + _STRIP
        parts += _strip(
            path, paths[path.label], key, {low: at * width for at, low in enumerate(lows)}, floor
        )
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}"/>')
    for at, low in enumerate([*lows, *(high for _, high in bounds[-1:])]):
        x = _LEFT + at * width
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 18}">{escape(name(low))}</text>')
    return "".join([*parts, "</svg>"])


def _strip(
    path: Path, figures: Json, key: str, places: Mapping[int, float], floor: float
) -> Iterator[str]:
    yield f'<text class="label" x="0" y="{floor - _STRIP / 2:.0f}">{path.label}</text>'
    width = _width(len(places))
    for bar in figures[key]:
        share = bar["packets"] / figures["packets"]
        height = share * _STRIP
        told = f"{bar['from']:,} to {bar['below']:,}: {bar['packets']:,} packets, {share:.1%}"
        yield (
            f'<rect x="{_LEFT + places[bar["from"]] + 1:.1f}" y="{floor - height:.1f}"'
            f' width="{max(1, width - 2):.1f}" height="{height:.1f}" fill="{COLOURS[path]}">'
            f"<title>{escape(told)}</title></rect>"
        )


def _width(bars: int) -> float:
    """Columns of one bar, with the space beside it."""
    return min(_WIDEST, (_WIDTH - _LEFT - _RIGHT) / max(bars, 1))
