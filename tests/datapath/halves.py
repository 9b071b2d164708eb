# SPDX-License-Identifier: Apache-2.0
"""Halves: a flow record as the oracle has it, its key, and both as a record of the maps."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from forwarding import Key
from world import BACK, ENDS, NEIGHBOUR_VETH, SEQUENCE, THERE, Approval, Crossing, Note

from vxlane.datapath.records import Tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """A flow record: ages in seconds."""

    out: int | None
    into: int | None
    epoch: int
    ifindex: int
    # What each side's next byte is numbered; of TCP.
    sent: int = SEQUENCE
    received: int = SEQUENCE
    is_open: bool = True
    # Whose FIN has passed, bits of enum end.
    closing: int = 0
    # Whose SYN was learned, enum end, and enum answer; 0: nobody's.
    opener: int = 0
    # What netfilter makes of the flow; None: nothing.
    behind: Key | None = None
    is_confirmed: bool = True
    # Of a flow to a pod of this node: that pod's veth, and how what each sends crosses.
    neighbour: int = NEIGHBOUR_VETH
    there: Crossing = THERE
    back: Crossing = BACK


_ALIKE = (
    "out",
    "into",
    "epoch",
    "ifindex",
    "is_open",
    "closing",
    "opener",
    "is_confirmed",
    "neighbour",
    "there",
    "back",
)
"""What an Approval has by the same names."""


def key_of(flow: Approval) -> Key:
    """The key of a record as the oracle has it."""
    return _key_of_tuple(flow.tuple)


def key_of_note(note: Note) -> Key:
    """The flow that a packet was of when it went in, as its sender has it."""
    ends = note.source.packed, note.destination.packed
    return *ends, note.source_port, note.destination_port, note.protocol


def flow_of(key: Key, halves: Halves) -> Approval:
    """Both as a record of the maps."""
    behind = halves.behind and _tuple_of(halves.behind)
    alike = {name: getattr(halves, name) for name in _ALIKE}
    return Approval(tuple=_tuple_of(key), behind=behind, **alike)


def halves_of(flow: Approval) -> Halves:
    """The record itself, but for which FIN has been acknowledged."""
    behind = flow.behind and _key_of_tuple(flow.behind)
    alike = {name: getattr(flow, name) for name in _ALIKE}
    alike["closing"] &= ENDS
    return Halves(behind=behind, **alike)


def _key_of_tuple(one: Tuple) -> Key:
    return one.local.packed, one.remote.packed, one.local_port, one.remote_port, one.protocol


def _tuple_of(key: Key) -> Tuple:
    local, remote, *numbers = key
    return Tuple(IPv4Address(local), IPv4Address(remote), *numbers)
