# SPDX-License-Identifier: Apache-2.0
"""Halves: a flow record as the oracle has it, its key, and both as a record of the maps."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from forwarding import Key
from frames import ECHO_REPLY, ECHO_REQUEST, ICMP
from world import BRIDGE_MAC, END_POD, END_REMOTE, SEQUENCE, Approval, Note

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
    # The half by which its SYN was learned; None: none was.
    opener: str | None = None
    # What netfilter makes of the flow; None: nothing.
    behind: Key | None = None
    is_confirmed: bool = True
    # Of a translated flow to a pod of this node: how it goes in and comes out.
    hops: int = 0
    by_gateway: bool = True
    source_mac: str = BRIDGE_MAC


_ALIKE = (
    "out",
    "into",
    "epoch",
    "ifindex",
    "is_open",
    "closing",
    "is_confirmed",
    "hops",
    "by_gateway",
    "source_mac",
)
"""What an Approval has by the same names."""


def key_of(flow: Approval) -> Key:
    """The key of a record as the oracle has it."""
    return _key_of_tuple(flow.tuple)


def key_of_note(note: Note, *, inbound: bool) -> Key:
    """The flow that a packet was of when it went in."""
    source, destination = note.source.packed, note.destination.packed
    if not inbound:
        return source, destination, note.source_port, note.destination_port, note.protocol
    if note.protocol == ICMP:
        sent = ECHO_REPLY if note.destination_port == ECHO_REQUEST else ECHO_REQUEST
        return destination, source, note.source_port, sent, ICMP
    return destination, source, note.destination_port, note.source_port, note.protocol


def flow_of(key: Key, halves: Halves) -> Approval:
    """Both as a record of the maps."""
    behind = halves.behind and _tuple_of(halves.behind)
    alike = {name: getattr(halves, name) for name in _ALIKE}
    return Approval(tuple=_tuple_of(key), behind=behind, **alike)


def halves_of(flow: Approval) -> Halves:
    """The record itself, but for which FIN has been acknowledged."""
    behind = flow.behind and _key_of_tuple(flow.behind)
    alike = {name: getattr(flow, name) for name in _ALIKE}
    alike["closing"] &= END_POD | END_REMOTE
    return Halves(behind=behind, **alike)


def _key_of_tuple(one: Tuple) -> Key:
    return one.local.packed, one.remote.packed, one.local_port, one.remote_port, one.protocol


def _tuple_of(key: Key) -> Tuple:
    local, remote, *numbers = key
    return Tuple(IPv4Address(local), IPv4Address(remote), *numbers)
