# SPDX-License-Identifier: Apache-2.0
"""The live view of `vxlane top`, drawn by rich: fits any terminal from 80x24 up."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vxlane.cli.common import Json
from vxlane.show.rates import Order, matching, rates_document
from vxlane.show.table import without_middle
from vxlane.show.top import Sampler

KEYS = {"p": Order.PACKETS, "b": Order.BYTES, "n": Order.NAME}
_CTRL_C, _ESCAPE = "\x03", "\x1b"
_ENTER, _BACKSPACE = ("\r", "\n"), ("\x7f", "\b")
_RED, _GOOD, _DIM = "bold red", "green", "dim"
_FIXED = 7
"""Lines that are always there: two of the head, two headers, two empty ones, and the keys."""


_NUMBERS = 22
"""Columns that the numbers of a pod or a peer take."""


@dataclass(slots=True)
class Choice:
    """What a person has chosen to see."""

    order: Order
    match: str = ""
    """Only rows with this text."""
    is_typing: bool = False

    def press(self, key: str) -> bool:
        """Take a key (empty: none was pressed); False: it ends the view."""
        if key == _CTRL_C or (key == "q" and not self.is_typing):
            return False
        if not self.is_typing:
            self.order = KEYS.get(key, self.order)
            self.is_typing = key == "/"
        elif key in _ENTER:
            self.is_typing = False
        elif key == _ESCAPE:
            self.is_typing, self.match = False, ""
        elif key in _BACKSPACE:
            self.match = self.match[:-1]
        elif key.isprintable():
            self.match += key
        return True

    @property
    def line(self) -> str:
        """The last line of the screen."""
        if self.is_typing:
            return f"only rows with: {self.match}_   (Enter keeps it, Esc shows all)"
        only = f", only {self.match!r}" if self.match else ""
        return f"sorted by {self.order.value}{only}: p packets, b bytes, n name; / filters, q ends"


def run(source: Sampler, interval: float, order: Order) -> None:
    """Draw a view each `interval` seconds until a key ends it."""
    console, choice = Console(), Choice(order)
    before = shown = source.sample()
    with _keyboard(), Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(Text("the first figures come after one interval; q ends"), refresh=True)
        due = time.monotonic() + interval
        while True:
            if not choice.press(_key(due - time.monotonic())):
                return
            if time.monotonic() >= due:
                due = time.monotonic() + interval
                before, shown = shown, source.sample()
            if shown is not before:
                document = rates_document(before, shown, choice.order)
                live.update(view(document, choice, *console.size), refresh=True)


@contextmanager
def _keyboard() -> Iterator[None]:
    """Keys come one by one and unseen; without a terminal as input there are none."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key(seconds: float) -> str:
    """The key that is pressed within that time; none: empty."""
    if not sys.stdin.isatty():
        time.sleep(max(0.0, seconds))
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], max(0.0, seconds))
    if not ready:
        return ""
    # Not by sys.stdin, whose buffer would keep a second key from select(). Nothing: it hung up.
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or _CTRL_C


def view(document: Json, choice: Choice, width: int, height: int) -> RenderableType:
    """All of the screen. What is slow comes first; the rest shares the lines that are left."""
    document = matching(document, choice.match)
    slow = document["slow"][: max(1, height // 6)]
    notes = [
        Text(note, style=_DIM, no_wrap=True, overflow="ellipsis") for note in document["notes"]
    ]
    left = height - _FIXED - max(1, len(slow)) - len(notes)
    verdicts = max(3, left // 3)
    rows = max(3, left - verdicts)
    half = (width - 2) // 2
    side_by_side = Table.grid(padding=(0, 2, 0, 0))
    side_by_side.add_row(
        _rates("POD", document["pods"][:rows], half), _rates("PEER", document["peers"][:rows], half)
    )
    return Group(
        _head(document),
        _costs(document["programs"]),
        *_slow(slow),
        Text(),
        _verdicts(document["verdicts"][:verdicts], width),
        Text(),
        side_by_side,
        *notes,
        Text(choice.line, style=_DIM, no_wrap=True, overflow="ellipsis"),
    )


def _head(document: Json) -> Text:
    share = document["share"]
    if not document["bypassing"]:
        return Text("vxlane: nothing is bypassed", style=_RED, no_wrap=True)
    shown = "no packets" if share is None else f"{share:.1%} bypassed"
    style = _RED if share is not None and share < 0.5 else _GOOD
    rates = [_short(document[f"{what}_per_second"]) for what in ("bypassed", "packets")]
    rest = f"  {rates[0]} of {rates[1]} packets/s of the overlay, over {document['seconds']:.1f} s"
    return Text.assemble("vxlane: ", (shown, style), rest, no_wrap=True, overflow="ellipsis")


def _costs(programs: Sequence[Json]) -> Text:
    costs = "  ".join(f"{row['program']} {row['ns_per_run']:.0f}" for row in programs)
    hint = "not counted (sysctl kernel.bpf_stats_enabled=1 counts it)"
    return Text(f"ns a packet: {costs or hint}", no_wrap=True, overflow="ellipsis")


def _slow(rows: Sequence[Json]) -> list[Text]:
    if not rows:
        return [Text("nothing is slow", style=_GOOD)]
    return [
        Text(f"{row['what']}: {row['why']}", style=_RED, no_wrap=True, overflow="ellipsis")
        for row in rows
    ]


def _table(*headers: str, width: int) -> Table:
    """The first column takes what is left, and numbers go to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), width=width, header_style="bold")
    made.add_column(headers[0], ratio=1, no_wrap=True, overflow="ellipsis")
    for header in headers[1:]:
        made.add_column(header, justify="right", no_wrap=True)
    return made


def _verdicts(rows: Sequence[Json], width: int) -> Table:
    made = _table("VERDICT", "PACKETS/s", "BYTES/s", "SHARE", width=width)
    styles = {"bypassed": _GOOD, "identity": _RED, "foreign": _DIM}
    for row in rows:
        share = "" if row["share"] is None or row["kind"] == "foreign" else f"{row['share']:.1%}"
        made.add_row(
            f"{row['program']} {row['verdict']}",
            _short(row["packets_per_second"]),
            _short(row["bytes_per_second"]),
            share,
            style=styles.get(row["kind"], ""),
        )
    return made


def _rates(header: str, rows: Sequence[Json], width: int) -> Table:
    made = _table(header, "OUT p/s", "IN p/s", "B/s", width=width)
    for row in rows:
        is_bad = bool(row.get("guarded")) or not row.get("reachable", True)
        octets = row["tx_bytes_per_second"] + row["rx_bytes_per_second"]
        rates = (row["tx_packets_per_second"], row["rx_packets_per_second"], octets)
        name = without_middle(row["name"], width - _NUMBERS)
        made.add_row(name, *map(_short, rates), style=_RED if is_bad else "")
    return made


def _short(rate: float) -> str:
    """Three figures and a unit: 12.3k."""
    units = iter("kMGT")
    unit = ""
    while rate >= 999.5:
        rate, unit = rate / 1000, next(units)
    return f"{rate:.1f}{unit}" if unit and rate < 99.5 else f"{rate:.0f}{unit}"
