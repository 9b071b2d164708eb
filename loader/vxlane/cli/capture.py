# SPDX-License-Identifier: Apache-2.0
"""`vxlane capture`: packets into a file that Wireshark, tshark and tcpdump read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from vxlane.cli import packet_options
from vxlane.cli.capture_merge import merge
from vxlane.cli.common import examples, filled, is_alone
from vxlane.errors import VxlaneError
from vxlane.trace import pcapng
from vxlane.trace.capture_file import CaptureFile, Rotation
from vxlane.trace.event import Event
from vxlane.trace.follow import Outcome, follow
from vxlane.trace.names import read_names
from vxlane.util.places import state_directory

_BUFFER = 16384
_LEAST_BUFFER = 128
"""KiB. A super-packet has 64, and its record a few bytes more."""
_WHOLE = 65536
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _size(_ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Bytes of such as 500K, 10M, 2G."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)([KMG]?)", value)
    if not found:
        wanted = "give a number with K, M or G, such as 10M"
        raise click.BadParameter(f"{value!r} is no size; {wanted}", param=option)
    return int(found[1]) * _UNITS[found[2]]


def _head(snaplen: int) -> bytes:
    """With the names of now: pods come and go while files follow each other."""
    names = read_names(state_directory())
    return pcapng.head(names.own, names.by_address(), snaplen)


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    epilog=examples(
        "vxlane capture -w web.pcapng --pod 10.42.1.5 --port 80",
        "vxlane capture -w - --verdict kernel_path | tshark -r -",
        "vxlane capture -w long.pcapng --outer --snaplen 128 --rotate 100M --keep 10",
    ),
)
@click.option(
    "-w",
    "--write",
    "name",
    metavar="FILE",
    callback=filled,
    help="Write to this file; - is standard output. Required to capture.",
)
@packet_options.packet_options(_BUFFER, least=_LEAST_BUFFER)
@click.option(
    "--snaplen",
    type=click.IntRange(1, _WHOLE),
    default=_WHOLE,
    show_default=True,
    metavar="BYTES",
    help="Keep this much of each packet. A super-packet may be longer than the maximum.",
)
@click.option(
    "--rotate",
    callback=_size,
    metavar="SIZE",
    help="Begin a new file at this size, such as 10M. FILE.1, ... of an earlier capture go.",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="With --rotate, keep this many files: FILE, FILE.1, ...",
)
@click.option(
    "--inner/--outer",
    default=True,
    show_default=True,
    help="Leave the tunnel's headers out, or keep them.",
)
@click.pass_context
def capture(context: click.Context, /, name: str | None, count: int | None, **options: Any) -> None:
    """Write packets to a pcapng file, each with its verdict as a comment.

    Each program is an interface of the file: from_pod, to_pod, from_nic, to_nic. The file has the
    names of pods and nodes. A packet is written as it leaves its program. A super-packet of 64 kB
    is one packet. `vxlane trace` has the same filters, and its help says what each program sees.

    Only root can read the file, since it holds what pods say to each other.
    """
    if not is_alone(context):
        return
    if name is None:
        raise click.UsageError("Missing option '-w' / '--write'.")
    snaplen, inner = options.pop("snaplen"), options.pop("inner")
    size, keep = options.pop("rotate"), options.pop("keep")
    if not size and context.get_parameter_source("keep") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--keep counts the files of --rotate; give that too")
    with packet_options.session(options, capture=snaplen, outer=not inner) as session:
        file = CaptureFile(
            name,
            Rotation(size, keep) if size else None,
            head=partial(_head, snaplen),
            tail=lambda: pcapng.tail(session.lost, session.now()),
        )

        def write(events: Iterable[Event]) -> None:
            for event in events:
                file.write(pcapng.packet(event, session.real, outer=not inner))
            file.flush()

        packet_options.say_ready()
        try:
            outcome = follow(session, write, count)
            file.close()
        except VxlaneError:
            counts = Outcome(file.packets, session.lost, session.unseen, session.stepped)
            packet_options.conclude(counts)
            raise
    packet_options.conclude(outcome)


capture.add_command(merge)
