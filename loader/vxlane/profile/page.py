# SPDX-License-Identifier: Apache-2.0
"""A profile as one HTML file that needs nothing else: no script, no font, no picture. Pure.

Each figure stands in a cell whose data-key is its path in the JSON document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape

from vxlane.profile import plot
from vxlane.profile.document import Json
from vxlane.profile.legs import Leg, Path
from vxlane.profile.text import us, used

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #212529; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem } h3 { font-size: 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem }
th, td { text-align: right; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid #dee2e6 }
th:first-child, td:first-child { text-align: left }
svg { max-width: 100%; height: auto; font: 11px system-ui, sans-serif }
svg text { fill: #212529 } svg .tick { fill: #868e96; text-anchor: middle }
svg .axis { stroke: #adb5bd }
.missing { border-left: 4px solid #c92a2a; padding-left: 1rem } div.wide { overflow-x: auto }
"""

_FIGURES = {
    "packets": "packets",
    "p50_ns": "p50, us",
    "p90_ns": "p90, us",
    "p99_ns": "p99, us",
    "longest_ns": "longest, us",
    "bytes_per_packet": "bytes a packet",
    "segments_per_packet": "segments a packet",
}
_STATES = ("user", "system", "irq", "softirq", "steal", "idle")


def page(profile: Json) -> str:
    """The whole file."""
    whose = f"pod {profile['pod']}" if profile["pod"] else "all pods"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>vxlane profile</title><style>{_STYLE}</style></head><body>",
        f"<h1>vxlane profile</h1><p>{profile['seconds']:g} s, {escape(whose)}.</p>",
        *_missing(profile["missing"]),
        *_latency(profile["latency"]),
        *_programs(profile["programs"]),
        *_machine(profile["machine"]),
        *_losses(profile["losses"]),
    ]
    return "".join([*parts, "</body></html>\n"])


def _missing(sentences: Iterable[str]) -> Iterator[str]:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    if items:
        yield f'<div class="missing"><h2>Missing</h2><ul>{items}</ul></div>'


def _latency(latency: Json) -> Iterator[str]:
    yield "<h2>Latency and sizes</h2>"
    for leg in used(latency):
        paths = latency[leg.label]
        yield f"<h3>{escape(leg.title)}</h3>"
        yield _table(("path", *_FIGURES.values()), _leg_rows(leg, paths))
        yield "<p>Share of the packets by microseconds:</p>"
        yield plot.histograms(paths, "histogram_ns", _tick)
        yield "<p>Share of the packets by bytes:</p>"
        yield plot.histograms(paths, "histogram_bytes", lambda low: f"{low:,}")


def _leg_rows(leg: Leg, paths: Json) -> Iterator[str]:
    for path in Path:
        figures = paths[path.label]
        place = f"latency.{leg.label}.{path.label}"
        cells = [f"<td>{path.label}</td>"]
        for key in _FIGURES:
            value = us(figures[key]) if key.endswith("_ns") else figures[key]
            cells.append(_cell(value, f"{place}.{key}"))
        yield "".join(cells)


def _programs(programs: Json) -> Iterator[str]:
    if programs:
        yield "<h2>What the programs cost</h2>"
        yield _table(("program", "runs", "ns a run", "share of a CPU"), _rows("programs", programs))


def _machine(machine: Json) -> Iterator[str]:
    total = {state: machine["total"][state] for state in _STATES}
    rows = [*_cpus(machine["cpus"]), *_rows("machine", {"total": total})]
    yield "<h2>The machine</h2><p>Shares of each CPU's time, and softirqs.</p>"
    yield _table(("CPU", *_STATES, "NET_RX", "NET_TX"), rows)
    backlog = {
        "dropped": "packets that found it full",
        "squeezed": "rounds that ended with work left",
    }
    counts = (
        f"<td>{what}</td>{_cell(machine[key], f'machine.{key}')}" for key, what in backlog.items()
    )
    yield _table(("a CPU's backlog", "count"), counts)


def _cpus(cpus: list[Json]) -> Iterator[str]:
    for place, cpu in enumerate(cpus):  # a CPU that is offline has no place
        keys = (*_STATES, "net_rx", "net_tx")
        cells = (_cell(cpu[key], f"machine.cpus.{place}.{key}") for key in keys)
        yield "".join((f"<td>{cpu['cpu']}</td>", *cells))


def _losses(losses: list[Json]) -> Iterator[str]:
    yield "<h2>Retransmits and unanswered SYNs</h2>"
    rows = [
        f"<td>{escape(row['remote'])}</td>"
        + _cell(row["retransmits"], f"losses.{number}.retransmits")
        + _cell(row["unanswered_syns"], f"losses.{number}.unanswered_syns")
        for number, row in enumerate(losses)
    ]
    yield _table(("to", "retransmits", "unanswered SYNs"), rows) if rows else "<p>None.</p>"


def _rows(place: str, rows: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    for name, figures in rows.items():
        cells = (_cell(value, f"{place}.{name}.{key}") for key, value in figures.items())
        yield f"<td>{escape(name)}</td>{''.join(cells)}"


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    top = "".join(f"<th>{escape(word)}</th>" for word in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: float | None, key: str) -> str:
    return f'<td data-key="{escape(key)}">{_shown(value)}</td>'


def _shown(value: float | None) -> str:
    """Without an exponent, however small."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6f}".rstrip("0").rstrip(".")


def _tick(nanoseconds: int) -> str:
    """Microseconds below an axis."""
    return f"{nanoseconds / 1000:,.{1 if nanoseconds < 100_000 else 0}f}"
