# SPDX-License-Identifier: Apache-2.0
"""A run's document as one HTML file that needs no other: no script, font or picture. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import zip_longest

from vxlane.bench import plot
from vxlane.bench.document import BASELINES, OWED, SUBJECT, Json
from vxlane.bench.ratios import FEWEST, WIDEST, Verdict
from vxlane.bench.text import GROWTH_HEAD, growth_lines, ratio, shown

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #212529; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid #dee2e6;
  white-space: nowrap }
.number { text-align: right } td.unclear { color: #868e96 } td.worse { color: #c92a2a }
pre { background: #f1f3f5; padding: .6rem; font-size: .8rem;
  white-space: pre-wrap }
svg { max-width: 100%; height: auto; font: 11px system-ui, sans-serif }
svg text { fill: #212529 } svg .axis { fill: #868e96 }
svg .grid { stroke: #dee2e6 } svg .one { stroke: #212529 } svg .median { stroke: #212529 }
.legend span { margin-right: 1.2rem } .legend i { display: inline-block; width: .7rem;
  height: .7rem; border-radius: 50%; margin-right: .3rem }
.failed { border-left: 4px solid #c92a2a; padding-left: 1rem }
summary { cursor: pointer } div.wide { overflow-x: auto }
"""


_NUMBER = ' class="number"'


def page(document: Json) -> str:
    """The whole file."""
    method = document["method"]
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>vxlane bench</title><style>{_STYLE}</style></head><body>",
        "<h1>vxlane bench</h1>",
        f"<p>{escape(document['began'])}, <code>{escape(' '.join(document['command']))}</code>.",
        f" {method['rounds']} rounds in rotated order, {method['seconds']:g} s each.</p>",
        *_failures(document["failures"]),
        _HOW_TO_READ,
        _legend(document["rows"]),
    ]
    for place in dict.fromkeys(row["place"] for row in document["rows"]):
        parts += _place(place, [row for row in document["rows"] if row["place"] == place])
    parts += _programs(document["programs"])
    parts += _growth(document["growth"])
    parts += _section("Paths", _pairs(document["paths"]))
    parts += _section("Environment", _pairs(document["environment"]))
    parts += _not_run(document["not_run"])
    parts += _commands(document["commands"])
    return "".join([*parts, "</body></html>\n"])


_HOW_TO_READ = (
    "<p>A dot is how many times better the path <em>bypass</em> is than another, in every row: the"
    " median of the rounds' ratios. The bar is their interquartile range. A hollow dot is no"
    f" result: its bar is longer than {WIDEST:.0%} of the median, or there are fewer than {FEWEST}"
    " rounds. Ratios mean something. Values of a lab on one machine do not, for both ends share"
    " its CPUs.</p>"
)


def _legend(rows: Sequence[Json]) -> str:
    marks = (
        f'<span><i style="background:{plot.COLOURS[path]}"></i>against {path}</span>'
        for path in BASELINES
        if any(path in row["ratios"] for row in rows)
    )
    return f'<p class="legend">{"".join(marks)}</p>'


def _place(place: str, rows: Sequence[Json]) -> Iterator[str]:
    yield f"<h2>{escape(place[:1].upper() + place[1:])}</h2>"
    yield plot.ratios(rows)
    yield "<details><summary>All values</summary><div class=wide>"
    yield _values_table(rows)
    yield "</div></details><details><summary>Every round</summary>"
    for row in rows:
        title = f"{row['work']}, {row['figure']} ({row['unit']}), {row['placement']}"
        yield f"<p>{escape(title)}</p>{plot.values(row['paths'], row['unit'])}"
    yield "</details>"


def _values_table(rows: Sequence[Json]) -> str:
    paths = [path for path in (SUBJECT, *BASELINES) if any(path in row["paths"] for row in rows)]
    against = [path for path in BASELINES if any(path in row["ratios"] for row in rows)]
    head = ["work", "ends on", "figure", "unit", *paths, *(f"against {path}" for path in against)]
    lines = []
    for row in rows:
        cells = [_cell(row[part]) for part in ("work", "placement", "figure", "unit")]
        for path in paths:
            value = shown(row["paths"][path]["median"]) if path in row["paths"] else ""
            cells.append(_cell(value, "number"))
        cells += [_ratio_cell(path, row["ratios"].get(path)) for path in against]
        lines.append(cells)
    return _table(head, lines)


def _ratio_cell(path: str, found: Json | None) -> str:
    """Red is what fails a run: worse than stock or the kernel path. Other paths are goals."""
    if found is None:
        return _cell("")
    verdict = Verdict(found["verdict"])
    is_failure = path in OWED and verdict is Verdict.WORSE
    kind = "unclear" if not verdict.is_result else "worse" if is_failure else ""
    return _cell(ratio(found), kind)


def _programs(programs: Sequence[Json]) -> Iterator[str]:
    if programs:
        lines = [
            [
                *(_cell(one[part]) for part in ("path", "program", "packets")),
                _cell(shown(one["ns"]), "number"),
                _cell(f"{one['runs']:,}", "number"),
                _cell(one["how"]),
            ]
            for one in programs
        ]
        head = ("path", "program", "packets", "ns a packet", "runs", "how")
        yield from _section("What the programs cost", _table(head, lines))


def _growth(grown: Sequence[Json]) -> Iterator[str]:
    if grown:
        lines = [[_cell(word) for word in line] for line in growth_lines(grown)]
        head = [word.lower() for word in GROWTH_HEAD]
        yield from _section("What the programs cost among more", _table(head, lines))


def _failures(sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        yield f'<div class="failed"><h2>Failed</h2><ul>{items}</ul></div>'


def _not_run(missing: Sequence[Json]) -> Iterator[str]:
    if missing:
        items = (f"<li>{escape(one['what'])}: {escape(one['why'])}</li>" for one in missing)
        yield from _section("Not run", f"<ul>{''.join(items)}</ul>")


def _commands(commands: Json) -> Iterator[str]:
    yield "<h2>Commands</h2><p>As they ran in the first round, server first.</p>"
    for what, lines in commands.items():
        yield f"<details><summary>{escape(what)}</summary>"
        yield f"<pre>{escape(chr(10).join(lines))}</pre></details>"


def _section(title: str, body: str) -> tuple[str, str]:
    return f"<h2>{escape(title)}</h2>", f"<div class=wide>{body}</div>"


def _pairs(values: Json) -> str:
    return _table((), [[_cell(name), _cell(value)] for name, value in values.items()])


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    rows = [list(line) for line in lines]
    kinds = [_NUMBER if _NUMBER in cell else "" for cell in (rows or [[]])[0]]
    titles = zip_longest(head, kinds if head else (), fillvalue="")
    cells = "".join(f"<th{kind}>{escape(word)}</th>" for word, kind in titles)
    top = f"<thead><tr>{cells}</tr></thead>" if cells else ""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table>{top}<tbody>{body}</tbody></table>"


def _cell(value: object, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<td{attribute}>{escape(str(value))}</td>"
