# SPDX-License-Identifier: Apache-2.0
"""World: what the maps hold while a program judges a packet, and the node that it describes.

Interfaces have fixed indexes, so that a table can name them before they exist. Times are ages in
seconds. worldmaps.py puts a world into maps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from frames import ICMP, TCP, UDP

from vxlane.datapath.abi import HEADER, Guard, Way
from vxlane.datapath.records import Peer, Pod, Tuple

NIC, BRIDGE, OVERLAY, VETH, NEIGHBOUR_VETH = 11, 12, 13, 21, 22
NIC_MAC, BRIDGE_MAC, OVERLAY_MAC = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:13"
ROUTER_MAC = "02:00:00:00:00:99"
NODE_ADDRESS, STRANGER = IPv4Address("192.168.77.1"), IPv4Address("203.0.113.7")
VNI, PORT, MTU, EPOCH = 1, 8472, 1450, 7
END_POD, END_REMOTE = HEADER.enums["end"]["END_POD"], HEADER.enums["end"]["END_REMOTE"]
ENDS, ANSWERED = END_POD | END_REMOTE, HEADER.enums["answer"]["ANSWERED"]
HEARD_POD, HEARD_REMOTE = END_POD << 2, END_REMOTE << 2
"""The other end has acknowledged the FIN of this one, see HEARD() in bpf/connection.h."""
NO_DEVICE = 99
"""An index that no device of the node has."""
SEQUENCE = 1000
"""Behind the last byte of either side of every TCP flow; frames.Tcp begins there."""

POD = Pod(
    address=IPv4Address("10.42.1.5"),
    ifindex=VETH,
    bridge=BRIDGE,
    mtu=MTU,
    mac="0a:00:00:00:01:05",
    gateway_mac=BRIDGE_MAC,
    guard=Guard(0),
    owner=1,
)
NEIGHBOUR = Pod(
    address=IPv4Address("10.42.1.6"),
    ifindex=NEIGHBOUR_VETH,
    bridge=BRIDGE,
    mtu=MTU,
    mac="0a:00:00:00:01:06",
    gateway_mac=BRIDGE_MAC,
    guard=Guard(0),
    owner=2,
)
PEER = Peer(
    cidr=IPv4Network("10.42.2.0/24"),
    address=IPv4Address("192.168.77.2"),
    next_hop=IPv4Address("192.168.77.2"),
    ifindex=NIC,
    mtu=MTU,
    slot=3,
    vtep_mac="0e:00:00:00:00:02",
)
OTHER_PEER = Peer(
    cidr=IPv4Network("10.42.3.0/24"),
    address=IPv4Address("192.168.77.3"),
    next_hop=IPv4Address("192.168.77.3"),
    ifindex=NIC,
    mtu=MTU,
    slot=4,
    vtep_mac="0e:00:00:00:00:03",
)
REMOTE, OTHER_REMOTE = IPv4Address("10.42.2.7"), IPv4Address("10.42.3.7")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """How what one of two pods of this node sends to the other crosses, if it is translated."""

    is_routed: bool = False
    by_gateway: bool = False
    """The sender sends it to the bridge's MAC."""
    source_mac: str = BRIDGE_MAC
    """Whose frame it comes out as."""


THERE, BACK = Crossing(by_gateway=True), Crossing()
"""What a pod sends to a Service, and what the Service's pod answers."""
UNSEEN = Crossing(source_mac="00:00:00:00:00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A flow record; `out` and `into` are the ages of its halves in seconds, None for never."""

    tuple: Tuple
    out: int | None = 1
    into: int | None = 1
    epoch: int = EPOCH
    ifindex: int = VETH
    is_open: bool = True
    """Of TCP: the ACK of its handshake has come out."""
    closing: int = 0
    """Of TCP: whose FIN has passed, bits of enum end."""
    opener: int = 0
    """Of TCP: whose SYN was learned, enum end, and whether the SYN-ACK is seen, enum answer."""
    behind: Tuple | None = None
    """What netfilter makes of it; None: it is not translated."""
    is_confirmed: bool = True
    """Of a translated one: more than one packet was seen."""
    neighbour: int = NEIGHBOUR_VETH
    """Of one to a pod of this node: that pod's veth."""
    there: Crossing = THERE
    back: Crossing = BACK
    """Of a translated one to a pod of this node: how what each of the two sends crosses."""

    @property
    def mirrored(self) -> Approval:
        """The record of the same flow, had the other pod of this node been seen to send first."""
        return replace(
            self,
            tuple=(self.behind or self.tuple).reversed,
            behind=self.behind and self.tuple.reversed,
            out=self.into,
            into=self.out,
            closing=_swapped(self.closing),
            opener=_swapped(self.opener & ENDS) | self.opener & ANSWERED,
            ifindex=self.neighbour,
            neighbour=self.ifindex,
            there=self.back if self.behind else THERE,
            back=self.there if self.behind else BACK,
        )


def _swapped(bits: int) -> int:
    """Bits of enum end, and the same two bits higher, as the other end has them."""
    return (bits & (END_POD | HEARD_POD)) << 1 | (bits & (END_REMOTE | HEARD_REMOTE)) >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a packet was when it went into the kernel path."""

    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int
    protocol: int
    ttl: int
    tos: int = 0
    unfinished: bool = False
    epoch: int = EPOCH
    content: int = 0
    outside: bool = False
    by_gateway: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the maps hold but counters; `lease` in seconds from now."""

    peers: tuple[Peer, ...] = (PEER, OTHER_PEER)
    pods: tuple[Pod, ...] = (POD, NEIGHBOUR)
    flows: frozenset[Approval] = frozenset()
    resets: frozenset[Tuple] = frozenset()
    lease: int = 60
    revalidate: int = 30
    revalidate_datagram: int = 10
    judged: bool = False
    judged_nat: bool = False
    strays: frozenset[tuple[Tuple, Tuple]] = frozenset()
    """More entries of `translations` than the flows have: a flow behind netfilter, and a key."""
    source_port: int = 50000
    """Of the outer header of every tunnelled flow."""
    vtep: int = OVERLAY
    """Ifindex of the device that shows conntrack what comes by a tunnel; 0: none."""
    heard: bool = False
    """Whether somebody listens to conntrack's changes."""
    may_drop: bool = False
    """Whether a rule may drop packets of established connections."""


def remote_flow(protocol: int, local_port: int, remote_port: int) -> Tuple:
    """A flow between POD and REMOTE."""
    return Tuple(POD.address, REMOTE, local_port, remote_port, protocol)


def local_flow(protocol: int, port: int, neighbour_port: int) -> Tuple:
    """A flow between POD and NEIGHBOUR."""
    return Tuple(POD.address, NEIGHBOUR.address, port, neighbour_port, protocol)


TCP_FLOW, UDP_FLOW = remote_flow(TCP, 40000, 80), remote_flow(UDP, 40001, 53)
# Of an ICMP echo: identifier, and the type that the local pod sends.
PING_FLOW, PINGED_FLOW = remote_flow(ICMP, 77, 8), remote_flow(ICMP, 78, 0)
LOCAL_TCP, LOCAL_UDP = local_flow(TCP, 40002, 8080), local_flow(UDP, 40003, 5353)

APPROVED = World(
    flows=frozenset(
        Approval(tuple=one)
        for one in (TCP_FLOW, UDP_FLOW, PING_FLOW, PINGED_FLOW, LOCAL_TCP, LOCAL_UDP)
    )
)

# The same, and PEER is on our link.
DIRECT = replace(APPROVED, peers=(replace(PEER, way=Way.DIRECT), OTHER_PEER))


def peer_of(address: IPv4Address | IPv6Address, peers: Iterable[Peer]) -> Peer | None:
    """The peer whose pods have an address."""
    return next((peer for peer in peers if address in peer.cidr), None)
