# SPDX-License-Identifier: Apache-2.0
"""What `vxlane trace` and `vxlane capture` share: filters, the buffer, and how a look ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from vxlane.cli import complete
from vxlane.cli.common import need_root
from vxlane.errors import VxlaneError
from vxlane.show import node
from vxlane.trace.filters import VERDICT_WORDS, Known, Wanted, build, notes
from vxlane.trace.follow import Outcome
from vxlane.trace.names import read_names
from vxlane.trace.session import Session
from vxlane.util import interrupt
from vxlane.util.places import state_directory

Function = TypeVar("Function", bound=Callable[..., Any])


_OPTIONS = (
    click.option(
        "--pod",
        metavar="POD",
        shell_complete=complete.pods,
        help="Packets of this pod, by its name, address or veth.",
    ),
    click.option(
        "--peer",
        metavar="NODE",
        shell_complete=complete.peers,
        help="Packets of this node's pods, by the node's name, address or pod CIDR.",
    ),
    click.option("--host", metavar="ADDRESS", help="Packets from or to this address."),
    click.option(
        "--proto",
        metavar="PROTOCOL",
        help="Packets of this protocol: tcp, udp, icmp, sctp or a number.",
    ),
    click.option("--port", type=click.IntRange(1, 65535), help="Packets from or to this port."),
    click.option(
        "--verdict",
        "verdicts",
        multiple=True,
        type=click.Choice(VERDICT_WORDS),
        metavar="VERDICT",
        help="Packets with this verdict, or with one of this kind, such as kernel_path. Can be"
        " repeated. docs/verdicts has the names.",
    ),
    click.option(
        "--flow",
        metavar="FLOW",
        help="Packets of this flow in both directions, written as 'vxlane flows' prints it:"
        " 'tcp 10.42.1.5:40000 10.42.2.7:80'. They are found behind NAT too.",
    ),
    click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many packets."),
)


def packet_options(buffer: int, least: int) -> Callable[[Function], Function]:
    """The options; `buffer` is the default of --buffer in KiB, `least` what it is at least."""
    kib = click.option(
        "--buffer",
        type=click.IntRange(least, 1 << 20),
        default=buffer,
        show_default=True,
        metavar="KIB",
        help="Buffer for packets that are not written yet. One that does not fit counts as lost.",
    )

    def decorate(function: Function) -> Function:
        for option in reversed((*_OPTIONS, kib)):
            function = option(function)
        return function

    return decorate


@contextmanager
def session(options: dict[str, Any], *, capture: int = 0, outer: bool = False) -> Iterator[Session]:
    """A look by the options of `packet_options`; `capture`: bytes of each packet, `outer`: with its
    tunnel's headers.
    """
    need_root()
    state = state_directory()
    # The kernel takes powers of two only.
    buffer = 1 << (options.pop("buffer") * 1024 - 1).bit_length()
    with node.open_maps(state) as maps:
        known = Known(read_names(state), maps.pods(), maps.peers(), maps.flows())
        wanted = Wanted(**options)
        asked = build(wanted, known)
        asked.capture, asked.outer = capture, outer
        for note in notes(wanted, known):
            click.echo(f"note: {note}", err=True)
        with Session(state, maps, asked, buffer) as opened, stopped_by_signals(opened.stop):
            yield opened


def say_ready() -> None:
    """From here on packets are seen."""
    click.echo("listening; Ctrl-C ends it", err=True)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """A signal that ends commands calls `stop`; a second one raises KeyboardInterrupt, for the
    output may be stuck.
    """
    before = {number: signal.getsignal(number) for number in interrupt.signals()}
    interrupt.catch_each(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(outcome: Outcome) -> None:
    """Say how a look ended. VxlaneError: it was cut short."""
    click.echo(summary(outcome), err=True)
    if outcome.is_cut_short:
        raise VxlaneError(
            "this node's programs were replaced or removed meanwhile, and show their packets no"
            " more; run it again when an agent runs"
        )


def summary(outcome: Outcome) -> str:
    """How a look ended, in a sentence."""
    said = f"{outcome.taken:,} packets, {outcome.lost:,} lost"
    if outcome.lost:
        said += " since the buffer was full: narrow the filter, or raise --buffer"
    if outcome.unseen:
        said += f"; none was seen for {outcome.unseen:.1f} s, while this process was stopped"
    if outcome.stepped:
        said += f"; the clock was set by {outcome.stepped:+.3f} s: times are by that of the start"
    return said
