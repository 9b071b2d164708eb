# SPDX-License-Identifier: Apache-2.0
"""Case: one row of a table: a packet and the maps in, a verdict and the whole packet out."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

from frames import ETHERNET, IP, TCP, Frame, Icmp, Raw, Tcp, Udp
from testrun import Context
from world import (
    APPROVED,
    BRIDGE_MAC,
    NEIGHBOUR,
    POD,
    REMOTE,
    Approval,
    Note,
    Tuple,
    World,
)

from vxlane.datapath.abi import Program, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`fact` is the row's name; `output`, `flows`, `resets` of None: as they were.

    `note`: what the packet was when it went into the kernel path; None: it carries no stamp.
    """

    program: Program
    verdict: Verdict
    fact: str
    frame: Frame | bytes
    ifindex: int
    world: World = APPROVED
    output: Frame | bytes | None = None
    flows: frozenset[Approval] | None = None
    resets: frozenset[Tuple] | None = None
    mark: int = 0
    priority: int = 0
    gso_size: int = 0
    note: Note | None = None

    def __str__(self) -> str:
        return f"{self.program.label}: {self.verdict.label}: {self.fact}"

    def context(self, stamp: int) -> Context:
        """What the frame's skb carries."""
        return Context(
            ifindex=self.ifindex,
            mark=self.mark,
            priority=self.priority,
            gso_size=self.gso_size,
            stamp=stamp,
        )


ACK_DATA = Tcp(source=40000, dest=80, payload=b"GET / HTTP/1.0\r\n\r\n")
DATAGRAM = Udp(source=40001, dest=53, payload=b"a question as long as an IPv6 header")
PING = Icmp(identifier=77, payload=b"are you there")


def sent(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame from POD to REMOTE by way of the node."""
    base = Frame(
        source_mac=POD.mac,
        dest_mac=BRIDGE_MAC,
        source=POD.address,
        destination=REMOTE,
        transport=transport,
    )
    return replace(base, **changes)


def handed_over(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame from POD to NEIGHBOUR, straight through the bridge."""
    return sent(
        transport, **{"dest_mac": NEIGHBOUR.mac, "destination": NEIGHBOUR.address, **changes}
    )


def handed_back(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame from NEIGHBOUR to POD, straight through the bridge."""
    ends = {"source": NEIGHBOUR.address, "destination": POD.address}
    return sent(transport, **{"source_mac": NEIGHBOUR.mac, "dest_mac": POD.mac, **ends, **changes})


def noted(frame: Frame, hops: int) -> Note | None:
    """The note of a frame that comes out `hops` of forwarding later; None where none is made."""
    transport = frame.transport
    if isinstance(transport, Raw):
        return None
    if isinstance(transport, Icmp):
        ports = transport.identifier, transport.kind
    else:
        ports = transport.source, transport.dest
    return Note(
        source=frame.source,
        destination=frame.destination,
        source_port=ports[0],
        destination_port=ports[1],
        protocol=transport.protocol,
        ttl=(frame.ttl + hops) & 0xFF,
        tos=frame.tos,
        content=content_of(frame),
        # To another node a pod sends by way of its own one.
        by_gateway=frame.source in {pod.address for pod in APPROVED.pods} and hops > 0,
    )


def content_of(frame: Frame) -> int:
    """What NAT leaves alone in a packet, as its note has it."""
    packet = bytes(frame)[ETHERNET:]
    if frame.transport.protocol == TCP:
        return int.from_bytes(packet[IP + 4 : IP + 8], "big")
    # Two fields as they stand on the wire, read as this machine reads numbers.
    length, identification = struct.unpack("=2xHH", packet[:6])
    return int(length) << 16 | int(identification)


def without(world: World, *gone: Tuple) -> frozenset[Approval]:
    """The flow records of a world but those."""
    return frozenset(flow for flow in world.flows if flow.tuple not in gone)


def only(*flows: Approval) -> World:
    """A world in which nothing but these flows is approved."""
    return replace(APPROVED, flows=frozenset(flows))
