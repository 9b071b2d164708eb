# SPDX-License-Identifier: Apache-2.0
"""`vxlane top`: what goes through this node now, and what of it is slow."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import click

from vxlane.cli.common import Json, Number, as_json, emit, examples
from vxlane.errors import ConfigError
from vxlane.show.rates import Order, rates_document
from vxlane.show.table import table
from vxlane.show.top import Sampler, sampler
from vxlane.util.places import state_directory

_RATES = ("OUT PACKETS/s", "OUT BYTES/s", "IN PACKETS/s", "IN BYTES/s")
_RATE_KEYS = (
    "name",
    *(f"{way}_{unit}_per_second" for way in ("tx", "rx") for unit in ("packets", "bytes")),
)
_TABLES = (
    ("slow", ("SLOW", "WHY"), ("what", "why")),
    (
        "verdicts",
        ("PROGRAM", "VERDICT", "PACKETS/s", "BYTES/s"),
        ("program", "verdict", "packets_per_second", "bytes_per_second"),
    ),
    ("pods", ("POD", *_RATES), _RATE_KEYS),
    ("peers", ("PEER", *_RATES), _RATE_KEYS),
    ("programs", ("PROGRAM", "RUNS/s", "ns A RUN"), ("program", "runs_per_second", "ns_per_run")),
)
"""Part of the document, header, and the keys of its columns."""


@click.command(
    epilog=examples("vxlane top", "vxlane top --once --sort bytes", "vxlane top --json | jq .share")
)
@click.option("--once", is_flag=True, help="Print one view and end.")
@click.option(
    "--interval",
    type=Number(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    help="Seconds between two samples. Rates are averages of that time.",
)
@click.option(
    "--sort",
    type=click.Choice([order.value for order in Order]),
    default=Order.PACKETS.value,
    show_default=True,
    help="Sort rows by this.",
)
@as_json
def top(once: bool, interval: float, sort: str, as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Watch what goes through this node: rates by pod, peer and verdict, and what is slow.

    In the live view p, b and n sort by packets, bytes or name, / shows only rows with a text, and q
    ends it. With --json, into a pipe or on a dumb terminal, it prints a document or a view for each
    interval. The programs' ns a run are shown only while the kernel counts: sysctl
    kernel.bpf_stats_enabled=1.
    """
    is_live = not (once or as_json) and _is_screen()
    order = Order(sort)
    if is_live:
        live = _live_view()
    with sampler(state_directory()) as source:
        try:
            if is_live:
                live(source, interval, order)
                return
            for document in _documents(source, interval, order):
                if once:
                    emit(document, _text, as_json=as_json)
                    return
                click.echo(json.dumps(document) if as_json else _text(document) + "\n")
        except KeyboardInterrupt:
            return  # Ctrl-C is how a stream is ended.


def _is_screen() -> bool:
    """Whether what is drawn is seen: on a dumb terminal rich draws nothing."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _live_view() -> Callable[[Sampler, float, Order], None]:
    """What draws it. ConfigError: rich is not there, which nothing else needs."""
    try:
        from vxlane.cli.top_screen import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        what = f"the live view needs the Python package {error.name}, which is not installed"
        raise ConfigError(f"{what}: {sys.executable} -m pip install rich, or use --once") from None
    return run


def _documents(source: Sampler, interval: float, order: Order) -> Iterator[Json]:
    before = source.sample()
    while True:
        time.sleep(interval)
        after = source.sample()
        yield rates_document(before, after, order)
        before = after


def _text(document: Json) -> str:
    share = document["share"]
    shown = "no packets of the overlay" if share is None else f"{share:.1%} bypassed"
    parts = [f"{shown}, {document['packets_per_second']:,} packets/s"]
    for part, header, keys in _TABLES:
        if rows := [[row[key] for key in keys] for row in document[part]]:
            parts.append(table(header, rows, cut=header[0]))
    parts += [f"note: {note}" for note in document["notes"]]
    return "\n\n".join(parts)
