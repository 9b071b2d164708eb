# SPDX-License-Identifier: Apache-2.0
"""What is known of one flow, at one moment: all that its next packet's verdict depends on. Pure."""

from __future__ import annotations

import enum
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from vxlane.datapath.records import Flow, Peer, Pod, Settings, Tuple
from vxlane.host.connections import Connection

_BEGINS = frozenset({"none", "syn_sent", "time_wait", "close"})
"""States of conntrack's in which the next packet that counts is a SYN."""


class Packet(enum.Enum):
    """What the flow's next packet is taken to be. It fits every MTU, and has no options."""

    SYN = "the first packet of a connection"
    DATA = "data of a connection"
    DATAGRAM = "a datagram"
    ECHO = "an ICMP echo"
    OTHER = "a packet of another protocol"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the flow `tuple` of a pod of this node, as that pod has it."""

    now: int
    """ns, CLOCK_MONOTONIC."""
    settings: Settings
    tuple: Tuple
    behind: Tuple
    """The same flow behind netfilter, as far as is known: by its record, else by conntrack."""
    pod: Pod | None
    """The local end; None: the programs know no such pod."""
    has_veth: bool = True
    """Whether the kernel still has the veth that the pod was accelerated with."""
    mac: str | None = None
    """Of the pod's own interface now; None: not known."""
    peer: Peer | None = None
    """Who has the remote address that the pod sends to."""
    far_peer: Peer | None = None
    """Who has the remote address behind netfilter."""
    neighbour: Pod | None = None
    """The pod of this node at the remote address that the pod sends to."""
    receiver: Pod | None = None
    """The pod of this node at the remote address behind netfilter, if its veth is there."""
    record: Flow | None = None
    """The flow's own."""
    entering: Flow | None = None
    """The record by which what a peer sends for the flow is judged."""
    connection: Connection | None = None
    """conntrack's entry."""
    is_of_this_node: bool = False
    """Whether the remote address behind netfilter is of this node's own pod CIDR."""
    node: Peer | None = None
    """The peer whose node itself has the remote address behind netfilter."""
    own_device: str = ""
    """The device by which this node itself has the remote address behind netfilter; empty: none."""
    next_hop: str = ""
    """How the route to the peer's node differs from what the programs know; empty: not at all."""

    qdiscs: Mapping[int, str] = field(default_factory=dict)
    """At the veths of the guarded ones of both pods, by ifindex."""

    @property
    def is_translated(self) -> bool:
        """Whether netfilter makes another flow of it, as far as is known."""
        return self.behind != self.tuple

    @property
    def packet(self) -> Packet:
        """What the next packet is: of TCP, conntrack and the record tell whether one is open."""
        if self.tuple.protocol == socket.IPPROTO_UDP:
            return Packet.DATAGRAM
        if self.tuple.protocol == socket.IPPROTO_ICMP:
            return Packet.ECHO
        if self.tuple.protocol != socket.IPPROTO_TCP:
            return Packet.OTHER
        if self.connection:
            return Packet.SYN if self.connection.state in _BEGINS else Packet.DATA
        is_known = self.record and (self.record.seen_out or self.record.seen_in)
        return Packet.DATA if is_known else Packet.SYN
