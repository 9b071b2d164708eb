# SPDX-License-Identifier: Apache-2.0
"""`vxlane capture merge`: two nodes' captures as one file."""

from __future__ import annotations

from pathlib import Path

import click

from vxlane.cli.common import PathName, examples, filled
from vxlane.errors import OptionError
from vxlane.trace.capture_file import CaptureFile
from vxlane.trace.merge import merge as merge_captures
from vxlane.trace.pcapng_reader import read

_FILE = PathName()


@click.command(
    epilog=examples(
        "vxlane capture merge node1.pcapng node2.pcapng -w both.pcapng",
        "vxlane capture merge node1.pcapng node2.pcapng -w - | tshark -r -",
    )
)
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option(
    "-w",
    "--write",
    "name",
    required=True,
    metavar="FILE",
    callback=filled,
    help="Write to this file; - is standard output.",
)
def merge(a: Path, b: Path, name: str) -> None:
    """Merge two nodes' captures into one file, in order of time.

    A and B are files that `vxlane capture` wrote on the two nodes at the same time. Times of B are
    shifted to A's clock by the offset that `vxlane path` estimates. The offset and its error are
    printed, and are in the file's comment. No time is shifted, and a message says so, unless both
    nodes have seen packets of both directions.

    The interfaces of A come first. The description of each begins with its node. A packet that both
    nodes have seen has the same comment at each place, such as `pair 7`. In Wireshark
    frame.comment == "pair 7" shows its way.
    """
    captures = [read(file) for file in (a, b)]
    if any(Path(name).resolve() == file.resolve() for file in (a, b)):
        raise OptionError(f"-w {name} would overwrite what is merged; name another file")
    merged = merge_captures(*captures)
    file = CaptureFile(name, None, head=merged.head, tail=merged.tail)
    for packet in merged.packets():
        file.write(packet)
        file.flush()
    file.close()
    count = sum(len(capture.packets) for capture in captures)
    click.echo(f"{count:,} packets, {len(merged.pairs):,} pairs; {merged.clocks}", err=True)
