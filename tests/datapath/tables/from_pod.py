# SPDX-License-Identifier: Apache-2.0
"""What a pod sends: ingress of its veth."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from frames import (
    ARP,
    CE,
    ECHO_REPLY,
    ECT0,
    ECT1,
    IPV6,
    MF,
    UNREACHABLE,
    Frame,
    Icmp,
    Raw,
    Tcp,
    Udp,
    tagged,
    vxlan,
)
from world import (
    APPROVED,
    BRIDGE,
    LOCAL_TCP,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NODE_ADDRESS,
    OVERLAY_MAC,
    PEER,
    POD,
    PORT,
    ROUTER_MAC,
    STRANGER,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    World,
)

from tables.case import ACK_DATA, DATAGRAM, PING, Case, handed_back, handed_over, only, sent
from vxlane.datapath.abi import Guard, Program, Verdict


def case(verdict: Verdict, fact: str, frame: Frame | bytes, **more: Any) -> Case:
    """A row of this table, of what POD sends unless `ifindex` is another's."""
    more = {"ifindex": VETH, **more}
    return Case(program=Program.FROM_POD, verdict=verdict, fact=fact, frame=frame, **more)


def wire(inner: Frame, *, tos: int = 0) -> Frame:
    """What leaves for PEER: `inner` one hop older, in a stock VXLAN packet.

    The Ethernet header is still the pod's: the neighbour layer writes the outer one afterwards.
    The IP identification is masked, see `test_tables.masked`.
    """
    carried = replace(inner, source_mac=OVERLAY_MAC, dest_mac=PEER.vtep_mac, ttl=inner.ttl - 1)
    return Frame(
        source_mac=inner.source_mac,
        dest_mac=inner.dest_mac,
        source=NODE_ADDRESS,
        destination=PEER.address,
        tos=tos,
        ttl=64,
        fragment=0,
        transport=Udp(
            source=World().source_port, dest=PORT, checksum=0, payload=vxlan(bytes(carried))
        ),
    )


def encapsulated(fact: str, frame: Frame, *, tos: int = 0, world: World = APPROVED) -> Case:
    """A row whose frame leaves for PEER."""
    return case(Verdict.ENCAPSULATED, fact, frame, world=world, output=wire(frame, tos=tos))


def guarded(pod: Guard, neighbour: Guard = NEIGHBOUR.guard) -> World:
    """The approved world with those guards."""
    return replace(APPROVED, pods=(replace(POD, guard=pod), replace(NEIGHBOUR, guard=neighbour)))


def udp_from(port: int) -> Frame:
    """A datagram of POD from that port."""
    return sent(replace(DATAGRAM, source=port))


def many_udp_flows(count: int) -> World:
    """A world in which UDP from the ports below `count` is approved."""
    return only(*(Approval(tuple=replace(UDP_FLOW, local_port=port)) for port in range(count)))


FULL = Udp(source=40001, dest=53, payload=bytes(1450 - 28))
LOCAL_DATA, LOCAL_DATAGRAM = Tcp(source=40002, dest=8080), Udp(source=40003, dest=5353)
LOCAL_REPLY, LOCAL_ANSWER = Tcp(source=8080, dest=40002), Udp(source=5353, dest=40003)

BYPASSED = [
    encapsulated("TCP data of an approved connection", sent(ACK_DATA)),
    encapsulated("a bare ACK", sent(replace(ACK_DATA, payload=b""))),
    encapsulated("TCP with options", sent(replace(ACK_DATA, options=bytes(12)))),
    encapsulated("an approved UDP flow", sent(DATAGRAM)),
    encapsulated("an approved echo request", sent(PING)),
    encapsulated("an approved echo reply", sent(Icmp(kind=ECHO_REPLY, identifier=78))),
    encapsulated("a packet of exactly the overlay's MTU", sent(FULL)),
    encapsulated("TTL 2, the last that leaves", sent(DATAGRAM, ttl=2)),
    encapsulated("DF stays the inner packet's own", sent(DATAGRAM, fragment=0)),
    encapsulated("DSCP stays inside", sent(DATAGRAM, tos=0xB8)),
    encapsulated("ECT(0) is copied out", sent(DATAGRAM, tos=0xB8 | ECT0), tos=ECT0),
    encapsulated("ECT(1) is copied out", sent(DATAGRAM, tos=ECT1), tos=ECT1),
    encapsulated("CE stays inside and goes as ECT(0)", sent(DATAGRAM, tos=CE), tos=ECT0),
    encapsulated(
        "UDP that was never answered, approved less than 10 s ago",
        sent(DATAGRAM),
        world=only(Approval(tuple=UDP_FLOW, out=8, into=None)),
    ),
    encapsulated(
        "UDP whose answers ceased long ago",
        sent(DATAGRAM),
        world=only(Approval(tuple=UDP_FLOW, out=8, into=900)),
    ),
    encapsulated(
        "TCP approved less than 30 s ago",
        sent(ACK_DATA),
        world=only(Approval(tuple=TCP_FLOW, out=28, into=28)),
    ),
    encapsulated(
        "UDP of a pod guarded towards it only", sent(DATAGRAM), world=guarded(Guard.TO_POD)
    ),
    *(
        case(Verdict.SWITCHED, fact, frame, output=frame)
        for fact, frame in (
            ("TCP to a pod of this node", handed_over(LOCAL_DATA)),
            ("UDP to a pod of this node", handed_over(LOCAL_DATAGRAM)),
            ("a bridged packet's TTL stands still", handed_over(LOCAL_DATAGRAM, ttl=1)),
            ("a bridge takes TTL 0", handed_over(LOCAL_DATAGRAM, ttl=0)),
            ("a bridged packet keeps its ECN", handed_over(LOCAL_DATAGRAM, tos=CE)),
        )
    ),
]

NOT_OURS = [
    case(Verdict.NOT_IP, "ARP", sent(Raw(0, bytes(8)), ethertype=ARP)),
    case(Verdict.NOT_IP, "IPv6", sent(DATAGRAM, ethertype=IPV6)),
    case(Verdict.NOT_IP, "a VLAN tag", tagged(sent(DATAGRAM), 5)),
    case(Verdict.NOT_IP, "a priority tag", tagged(sent(DATAGRAM), 0)),
    case(Verdict.NOT_IP, "two priority tags", tagged(sent(DATAGRAM), 0, 0)),
    case(Verdict.TAGS, "three priority tags", tagged(sent(DATAGRAM), 0, 0, 0)),
    case(
        Verdict.SPOOFED_ADDRESS,
        "another address behind two priority tags",
        tagged(sent(DATAGRAM, source=STRANGER), 0, 0),
    ),
    case(
        Verdict.SPOOFED_MAC,
        "another MAC behind a priority tag",
        tagged(sent(DATAGRAM, source_mac=ROUTER_MAC), 0),
    ),
    *(
        case(Verdict.FORGED_TUNNEL, fact, sent(replace(DATAGRAM, dest=PORT), **changes))
        for fact, changes in (
            ("a tunnel made by hand to the node", {"destination": NODE_ADDRESS}),
            ("a tunnel made by hand to a peer", {"destination": PEER.address}),
            ("a tunnel made by hand to a pod", {}),
            ("a tunnel made by hand with IP options", {"options": bytes(4)}),
            ("the first fragment of one", {"fragment": MF}),
        )
    ),
    case(Verdict.NOT_IP, "a runt of another ethertype", bytes(sent(PING, ethertype=ARP))[:20]),
    case(Verdict.NO_PEER, "a destination outside", sent(DATAGRAM, destination=STRANGER)),
    case(Verdict.NO_PEER, "multicast", sent(DATAGRAM, destination=IPv4Address("224.0.0.251"))),
    case(
        Verdict.NO_PEER,
        "a local address that no pod has",
        handed_over(LOCAL_DATA, destination=IPv4Address("10.42.1.99")),
    ),
    case(
        Verdict.NO_POD,
        "a pod that has moved to another bridge",
        handed_over(LOCAL_DATA),
        world=replace(APPROVED, pods=(POD, replace(NEIGHBOUR, bridge=BRIDGE + 1))),
    ),
    *(
        case(
            Verdict.FLOW_WITHDRAWN,
            f"TCP {fact}, approved for an earlier {which}",
            frame,
            ifindex=ifindex,
            world=only(Approval(tuple=LOCAL_TCP, **change)),
        )
        for which, change in (
            ("pod", {"ifindex": VETH + 100}),
            ("neighbour", {"neighbour": NEIGHBOUR_VETH + 100}),
        )
        for fact, frame, ifindex in (
            ("to a neighbour", handed_over(LOCAL_DATA), VETH),
            ("of a neighbour", handed_back(LOCAL_REPLY), NEIGHBOUR_VETH),
        )
    ),
    case(
        Verdict.NO_AGENT, "the lease has run out", sent(ACK_DATA), world=replace(APPROVED, lease=-1)
    ),
    case(Verdict.MARKED, "a mark of someone else", sent(ACK_DATA), mark=0x4000),
    case(
        Verdict.JUDGED,
        "a rule that acts on every packet",
        sent(ACK_DATA),
        world=replace(APPROVED, judged=True),
    ),
    case(
        Verdict.JUDGED,
        "a rule that acts on every packet of this pod",
        sent(DATAGRAM),
        world=guarded(Guard.JUDGED),
    ),
    case(
        Verdict.JUDGED,
        "a rule that acts on every packet of the neighbour",
        handed_over(LOCAL_DATAGRAM),
        world=guarded(Guard(0), Guard.JUDGED),
    ),
    *(
        case(Verdict.GUARDED, fact, frame, world=guarded(*guards))
        for fact, frame, guards in (
            ("UDP of a pod guarded on its way out", sent(DATAGRAM), [Guard.FROM_POD]),
            ("TCP of a pod guarded on its way out", sent(ACK_DATA), [Guard.FROM_POD]),
            ("TCP of a pod guarded on its way in", sent(ACK_DATA), [Guard.TO_POD]),
            (
                "UDP to a neighbour guarded on its way in",
                handed_over(LOCAL_DATAGRAM),
                [Guard(0), Guard.TO_POD],
            ),
            (
                "TCP to a neighbour guarded on its way out",
                handed_over(LOCAL_DATA),
                [Guard(0), Guard.FROM_POD],
            ),
        )
    ),
]

BAD_PACKETS = [
    case(Verdict.MALFORMED, "IP version 6", sent(DATAGRAM, version=6)),
    case(Verdict.MALFORMED, "a header shorter than a header", sent(DATAGRAM, ihl=4)),
    case(Verdict.MALFORMED, "a total length above the frame's", sent(DATAGRAM, total_length=39)),
    case(Verdict.MALFORMED, "bytes behind the packet", sent(DATAGRAM, padding=b"\0")),
    case(Verdict.MALFORMED, "a wrong header checksum", sent(DATAGRAM, checksum=0x1234)),
    case(Verdict.MALFORMED, "a cut TCP header", sent(Raw(6, bytes(19)))),
    case(
        Verdict.MALFORMED, "a TCP header shorter than a header", sent(replace(ACK_DATA, offset=4))
    ),
    case(Verdict.MALFORMED, "a TCP header beyond the end", sent(replace(ACK_DATA, offset=15))),
    case(Verdict.MALFORMED, "a cut UDP header", sent(Raw(17, bytes(7)))),
    case(Verdict.MALFORMED, "a cut ICMP header", sent(Raw(1, bytes(7)))),
    case(Verdict.IP_OPTIONS, "a record-route option", sent(DATAGRAM, options=b"\x07\x04\x04\x00")),
    case(Verdict.FRAGMENT, "a first fragment", sent(DATAGRAM, fragment=MF)),
    case(Verdict.FRAGMENT, "a last fragment", sent(DATAGRAM, fragment=185)),
    case(Verdict.TTL, "TTL 1", sent(DATAGRAM, ttl=1)),
    case(Verdict.TTL, "TTL 0", sent(DATAGRAM, ttl=0)),
    case(Verdict.PROTOCOL, "SCTP", sent(Raw(132, bytes(16)))),
    case(Verdict.PROTOCOL, "an ICMP error", sent(Icmp(kind=UNREACHABLE, identifier=77))),
    case(
        Verdict.PROTOCOL,
        "an echo with a code: a flow apart to conntrack",
        sent(replace(PING, code=1)),
    ),
    case(
        Verdict.TOO_BIG,
        "a packet above the overlay's MTU",
        sent(replace(FULL, payload=bytes(1423))),
    ),
    case(
        Verdict.TOO_BIG,
        "a super-packet whose segments exceed the MTU",
        sent(replace(ACK_DATA, payload=bytes(2900))),
        gso_size=1411,
    ),
    case(
        Verdict.TOO_BIG,
        "a packet above the receiving pod's MTU",
        handed_over(replace(LOCAL_DATAGRAM, payload=bytes(1423))),
    ),
    case(
        Verdict.REFUSED,
        "a super-packet of a kind that can't be nested",
        sent(replace(ACK_DATA, payload=bytes(2800))),
        gso_size=1400,
    ),
]

TWINS = replace(APPROVED, pods=(POD, replace(NEIGHBOUR, owner=POD.owner)))

IDENTITY = [
    case(
        Verdict.OTHER_INTERFACE,
        "from the address of another interface of its own",
        sent(DATAGRAM, source=NEIGHBOUR.address),
        world=TWINS,
    ),
    case(
        Verdict.FORGED_TUNNEL,
        "a tunnel made by hand from another interface of its own",
        sent(replace(DATAGRAM, dest=PORT), source=NEIGHBOUR.address),
        world=TWINS,
    ),
    case(
        Verdict.SPOOFED_MAC,
        "from another interface of its own, by that one's MAC",
        sent(DATAGRAM, source=NEIGHBOUR.address, source_mac=NEIGHBOUR.mac),
        world=TWINS,
    ),
    case(Verdict.SPOOFED_ADDRESS, "a source that no pod has", sent(DATAGRAM, source=STRANGER)),
    case(Verdict.SPOOFED_ADDRESS, "a neighbour's source", sent(DATAGRAM, source=NEIGHBOUR.address)),
    case(
        Verdict.SPOOFED_ADDRESS,
        "a stranger's malformed packet is a stranger's first",
        sent(DATAGRAM, source=STRANGER, checksum=1),
    ),
    case(Verdict.SPOOFED_MAC, "a neighbour's MAC", sent(DATAGRAM, source_mac=NEIGHBOUR.mac)),
    case(Verdict.OTHER_MAC, "by a router that the pod chose", sent(DATAGRAM, dest_mac=ROUTER_MAC)),
    case(
        Verdict.OTHER_MAC,
        "to a neighbour by way of the node",
        handed_over(LOCAL_DATA, dest_mac=POD.gateway_mac),
    ),
    case(
        Verdict.OTHER_MAC,
        "to itself",
        handed_over(LOCAL_DATA, dest_mac=POD.mac, destination=POD.address),
        world=only(Approval(tuple=replace(LOCAL_TCP, remote=POD.address), neighbour=VETH)),
    ),
]

CASES = [*BYPASSED, *NOT_OURS, *BAD_PACKETS, *IDENTITY]
