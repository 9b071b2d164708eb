# SPDX-License-Identifier: Apache-2.0
"""`vxlane path`: how long packets took between two nodes, from both nodes' captures."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click

from vxlane.cli.common import Json, PathName, as_json, emit, examples
from vxlane.errors import VxlaneError
from vxlane.show.table import table
from vxlane.trace.path import Offset, Trip, corrected, histogram, offset_of, trips
from vxlane.trace.pcapng_reader import read

_MICROSECOND = 1000
_BAR = 40
_PATHS = ("kernel", "half", "bypass")
"""By the number of nodes that took a packet past their kernel path."""
_FILE = PathName()


@click.command(
    epilog=examples(
        "vxlane path node1.pcapng node2.pcapng",
        "vxlane path node1.pcapng node2.pcapng --json | jq .packets",
    )
)
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@as_json
def path(a: Path, b: Path, *, as_json: bool) -> None:
    """Show how long packets took from a pod on node A to one on node B, and back.

    A and B are files that `vxlane capture --inner` wrote on the two nodes at the same time. SENDER
    is the time from the pod's veth to the NIC, WIRE from NIC to NIC, RECEIVER from the NIC to the
    pod's veth. A bypassed packet has WIRE alone, since one program does the rest. PATH is half if
    only one of the nodes bypassed the packet.

    The nodes' clocks differ. The difference is estimated from packets of both directions, and
    printed with its error. WIRE is no more exact than that. Super-packets, fragments and translated
    packets are left out, and TCP's where less than 50 bytes of each were captured.
    """
    found = trips(read(a).packets, read(b).packets)
    offset = offset_of(found)
    if offset is None:
        raise VxlaneError(
            f"{a} and {b} have no packet from each node to the other that both have seen; capture"
            " on both nodes at the same time, without --outer, with a --snaplen of 50 or more, and"
            " of traffic in both directions"
        )
    emit(_document(found, offset), _text, as_json=as_json)


def _document(found: list[Trip], offset: Offset) -> Json:
    """Times in microseconds."""
    packets = [
        {
            "direction": "a to b" if trip.is_forward else "b to a",
            "path": _PATHS[trip.bypasses],
            "sender": _us(trip.sender),
            "wire": _us(corrected(trip, offset)),
            "receiver": _us(trip.receiver),
        }
        for trip in found
    ]
    return {
        "offset": _us(offset.value),
        "offset_error": _us(offset.error),
        "packets": packets,
        "histogram": [
            {"from": low, "packets": count}
            for low, count in histogram(round(packet["wire"]) for packet in packets)
        ],
    }


def _us(nanoseconds: int | None) -> Any:
    return None if nanoseconds is None else nanoseconds / _MICROSECOND


def _text(told: Json) -> str:
    groups = sorted({(packet["direction"], packet["path"]) for packet in told["packets"]})
    rows = [_row(told["packets"], direction, way) for direction, way in groups]
    header = ("DIRECTION", "PATH", "PACKETS", "SENDER us", "WIRE us", "RECEIVER us")
    most = max(bucket["packets"] for bucket in told["histogram"])
    bars = [
        (bucket["from"], bucket["packets"], "*" * (_BAR * bucket["packets"] // most))
        for bucket in told["histogram"]
    ]
    clocks = f"B's clock less A's: {told['offset']:.1f} us, give or take {told['offset_error']:.1f}"
    return "\n\n".join(
        [f"{clocks}; times are medians", table(header, rows), table(("WIRE us", "", ""), bars)]
    )


def _row(packets: list[Json], direction: str, way: str) -> tuple[Any, ...]:
    """The medians of one direction and path."""
    own = [
        packet for packet in packets if (packet["direction"], packet["path"]) == (direction, way)
    ]
    medians = []
    for part in ("sender", "wire", "receiver"):
        times = [packet[part] for packet in own if packet[part] is not None]
        medians.append(round(statistics.median(times), 1) if times else None)
    return (direction, way, len(own), *medians)
