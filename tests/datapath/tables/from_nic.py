# SPDX-License-Identifier: Apache-2.0
"""What reaches the node: ingress of its NIC."""

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
    NOT_ECT,
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
    BRIDGE_MAC,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_PEER,
    OTHER_REMOTE,
    OVERLAY_MAC,
    PEER,
    POD,
    PORT,
    REMOTE,
    ROUTER_MAC,
    STRANGER,
    UDP_FLOW,
    Approval,
    World,
)

from tables.case import Case, only
from vxlane.datapath.abi import Guard, Program, Verdict

RESPONSE = Tcp(source=80, dest=40000, payload=b"HTTP/1.0 200 OK\r\n\r\n")
ANSWER = Udp(source=53, dest=40001, payload=b"an answer")
PONG = Icmp(kind=ECHO_REPLY, identifier=77, payload=b"here")


def case(verdict: Verdict, fact: str, frame: Frame | bytes, **more: Any) -> Case:
    """A row of this table."""
    return Case(
        program=Program.FROM_NIC, verdict=verdict, fact=fact, frame=frame, ifindex=NIC, **more
    )


def inner(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame of REMOTE for POD as its node puts it into the overlay."""
    base = Frame(
        source_mac=PEER.vtep_mac,
        dest_mac=OVERLAY_MAC,
        source=REMOTE,
        destination=POD.address,
        ttl=63,
        transport=transport,
    )
    return replace(base, **changes)


def wire(payload: bytes, **changes: Any) -> Frame:
    """A UDP datagram from PEER to the VXLAN port of this node."""
    base = Frame(
        source_mac=ROUTER_MAC,
        dest_mac=NIC_MAC,
        source=PEER.address,
        destination=NODE_ADDRESS,
        fragment=0,
        transport=Udp(source=50000, dest=PORT, checksum=0, payload=payload),
    )
    return replace(base, **changes)


def carried(frame: Frame | bytes, **changes: Any) -> Frame:
    """`frame` in VXLAN from PEER."""
    return wire(vxlan(bytes(frame)), **changes)


def covered(frame: Frame) -> Frame:
    """`frame` in VXLAN from PEER with an outer UDP checksum, as flannel.1 sends it."""
    made = carried(frame)
    return replace(made, transport=replace(made.transport, checksum=None))


def decapsulated(
    fact: str, frame: Frame, *, outer: int = 0, inside: int | None = None, world: World = APPROVED
) -> Case:
    """A row whose inner frame goes to POD; `outer` and `inside` are the TOS out and in."""
    output = replace(
        frame,
        source_mac=BRIDGE_MAC,
        dest_mac=POD.mac,
        ttl=frame.ttl - 1,
        tos=frame.tos if inside is None else inside,
    )
    return case(Verdict.DECAPSULATED, fact, carried(frame, tos=outer), world=world, output=output)


def guarded(guard: Guard) -> World:
    """The approved world with a guarded POD."""
    return replace(APPROVED, pods=(replace(POD, guard=guard),))


UNCHECKED = replace(ANSWER, checksum=0)
FULL = Udp(source=53, dest=40001, payload=bytes(1450 - 28))
GOOD = carried(inner(ANSWER))

BYPASSED = [
    decapsulated("TCP data of an approved connection", inner(RESPONSE)),
    decapsulated("a bare ACK", inner(replace(RESPONSE, payload=b""))),
    decapsulated("an approved UDP flow", inner(ANSWER)),
    decapsulated("UDP without a checksum, in a tunnel without one", inner(UNCHECKED)),
    decapsulated("an approved echo reply", inner(PONG)),
    decapsulated("an approved echo request", inner(Icmp(identifier=78))),
    *(
        case(
            Verdict.DECAPSULATED,
            fact,
            frame,
            output=replace(inner(ANSWER), source_mac=BRIDGE_MAC, dest_mac=POD.mac, ttl=62),
        )
        for fact, frame in (
            ("with an outer UDP checksum, as flannel.1 sends it", covered(inner(ANSWER))),
            (
                "with a wrong one: what it covers is checked otherwise",
                replace(GOOD, transport=replace(GOOD.transport, checksum=0x1234)),
            ),
        )
    ),
    decapsulated("a packet of exactly the pod's MTU", inner(FULL)),
    decapsulated("TTL 2, the last that arrives", inner(ANSWER, ttl=2)),
    decapsulated("DSCP is the inner packet's", inner(ANSWER, tos=0xB8), outer=0x28),
    decapsulated(
        "UDP that was never answered",
        inner(ANSWER),
        world=only(Approval(tuple=UDP_FLOW, out=None, into=8)),
    ),
    decapsulated(
        "UDP of a pod guarded on its way out only", inner(ANSWER), world=guarded(Guard.FROM_POD)
    ),
    # RFC 6040, figure 4: outer mark, inner mark -> inner mark of what the pod gets.
    *(
        decapsulated(
            f"ECN {out} outside and {within} inside become {becomes}",
            inner(ANSWER, tos=within),
            outer=out,
            inside=becomes,
        )
        for out, within, becomes in (
            (NOT_ECT, ECT0, ECT0),
            (NOT_ECT, ECT1, ECT1),
            (NOT_ECT, CE, CE),
            (ECT0, ECT0, ECT0),
            (ECT0, ECT1, ECT1),
            (ECT0, CE, CE),
            (ECT1, ECT1, ECT1),
            (CE, ECT0, CE),
            (CE, ECT1, CE),
            (CE, CE, CE),
        )
    ),
]

NOT_OVERLAY = [
    case(Verdict.NOT_IP, "ARP", replace(GOOD, ethertype=ARP)),
    case(Verdict.NOT_IP, "IPv6", replace(GOOD, ethertype=IPV6)),
    case(Verdict.NOT_IP, "a VLAN tag", tagged(GOOD, 5)),
    case(Verdict.TAGS, "three priority tags", tagged(GOOD, 0, 0, 0)),
    case(Verdict.TAGS, "three priority tags inside", carried(tagged(inner(ANSWER), 0, 0, 0))),
    case(
        Verdict.UNKNOWN_VTEP,
        "a stranger's tunnel behind two priority tags",
        tagged(replace(GOOD, source=STRANGER), 0, 0),
    ),
    case(
        Verdict.WRONG_VTEP,
        "another peer's pod behind two priority tags inside",
        carried(tagged(inner(ANSWER, source=OTHER_REMOTE), 0, 0)),
    ),
    case(Verdict.NOT_OVERLAY, "TCP", replace(GOOD, transport=Tcp(source=1, dest=PORT))),
    case(Verdict.NOT_OVERLAY, "another UDP port", replace(GOOD, transport=ANSWER)),
    case(
        Verdict.NOT_OVERLAY,
        "malformed UDP to another port",
        replace(GOOD, transport=replace(ANSWER, length=4)),
    ),
    case(Verdict.NOT_OVERLAY, "a cut UDP header", replace(GOOD, transport=Raw(17, bytes(7)))),
    case(Verdict.MALFORMED, "an outer IP version 6", replace(GOOD, version=6)),
    case(Verdict.MALFORMED, "an outer header shorter than a header", replace(GOOD, ihl=4)),
    case(Verdict.MALFORMED, "a wrong outer checksum", replace(GOOD, checksum=1)),
    case(Verdict.MALFORMED, "bytes behind the outer packet", replace(GOOD, padding=b"\0")),
    case(
        Verdict.MALFORMED,
        "a UDP length other than IP's",
        replace(GOOD, transport=replace(GOOD.transport, length=60)),
    ),
    case(Verdict.MALFORMED, "a cut VXLAN header", wire(bytes(7))),
    case(Verdict.IP_OPTIONS, "outer IP options", replace(GOOD, options=bytes(4))),
    case(Verdict.FRAGMENT, "an outer first fragment", replace(GOOD, fragment=MF)),
    case(Verdict.FRAGMENT, "an outer last fragment", replace(GOOD, fragment=185)),
    case(
        Verdict.VXLAN_HEADER,
        "group policy",
        wire(vxlan(bytes(inner(ANSWER)), flags=0x88000000)),
    ),
    case(Verdict.VXLAN_HEADER, "no VNI flag", wire(vxlan(bytes(inner(ANSWER)), flags=0))),
    case(
        Verdict.VXLAN_HEADER,
        "a reserved bit behind the VNI",
        wire(vxlan(bytes(inner(ANSWER)), reserved=1)),
    ),
    case(Verdict.FOREIGN_VNI, "VNI 2", wire(vxlan(bytes(inner(ANSWER)), vni=2))),
]

IDENTITY = [
    case(Verdict.NO_AGENT, "the lease has run out", GOOD, world=replace(APPROVED, lease=-1)),
    case(
        Verdict.NOT_OUR_VTEP,
        "another underlay address",
        replace(GOOD, destination=IPv4Address("192.168.77.9")),
    ),
    case(Verdict.NOT_OUR_VTEP, "another station's MAC", replace(GOOD, dest_mac=ROUTER_MAC)),
    case(Verdict.NOT_OUR_VTEP, "a broadcast frame", replace(GOOD, dest_mac="ff:ff:ff:ff:ff:ff")),
    case(Verdict.UNKNOWN_VTEP, "a source that is no peer", replace(GOOD, source=STRANGER)),
    *(
        case(Verdict.UNKNOWN_VTEP, f"{what}, from no peer", replace(GOOD, source=STRANGER, **odd))
        for what, odd in (
            ("bytes behind the outer packet", {"padding": b"\0"}),
            ("outer IP options", {"options": bytes(4)}),
            ("an outer first fragment", {"fragment": MF}),
        )
    ),
    case(
        Verdict.UNKNOWN_VTEP,
        "an outer first fragment too short to tell, from no peer",
        wire(bytes(7), source=STRANGER, fragment=MF),
    ),
    case(
        Verdict.WRONG_VTEP,
        "bytes behind the outer packet of another peer",
        replace(carried(inner(ANSWER, source=OTHER_REMOTE)), padding=b"\0"),
    ),
    case(
        Verdict.UNKNOWN_VTEP,
        "no inner frame, from no peer",
        wire(vxlan(b""), source=STRANGER),
    ),
    case(
        Verdict.UNKNOWN_VTEP,
        "inner ARP, from no peer",
        carried(inner(ANSWER, ethertype=ARP), source=STRANGER),
    ),
    case(
        Verdict.WRONG_VTEP,
        "an inner source of another peer",
        carried(inner(ANSWER, source=OTHER_REMOTE)),
    ),
    case(
        Verdict.WRONG_VTEP,
        "an inner source of this peer from another",
        replace(GOOD, source=OTHER_PEER.address),
    ),
    case(
        Verdict.NO_PEER,
        "an inner source in no peer's CIDR",
        carried(inner(ANSWER, source=STRANGER)),
    ),
    case(Verdict.MARKED, "a mark of someone else", GOOD, mark=1),
    case(
        Verdict.OTHER_MAC,
        "an inner frame for another VTEP",
        carried(inner(ANSWER, dest_mac=ROUTER_MAC)),
    ),
    case(
        Verdict.OTHER_MAC,
        "an inner frame from our own VTEP",
        carried(inner(ANSWER, source_mac=OVERLAY_MAC)),
    ),
    case(
        Verdict.NO_POD,
        "an address that no pod has",
        carried(inner(ANSWER, destination=IPv4Address("10.42.1.99"))),
    ),
    case(
        Verdict.NO_POD,
        "the node's own address in the overlay",
        carried(inner(ANSWER, destination=IPv4Address("10.42.1.0"))),
    ),
    case(
        Verdict.JUDGED,
        "a rule that acts on every packet",
        GOOD,
        world=replace(APPROVED, judged=True),
    ),
    case(
        Verdict.JUDGED,
        "a rule that acts on every packet of this pod",
        GOOD,
        world=guarded(Guard.JUDGED),
    ),
    case(Verdict.GUARDED, "UDP to a pod guarded on its way in", GOOD, world=guarded(Guard.TO_POD)),
    case(
        Verdict.GUARDED,
        "TCP to a pod guarded on its way out",
        carried(inner(RESPONSE)),
        world=guarded(Guard.FROM_POD),
    ),
]

CASES = [*BYPASSED, *NOT_OVERLAY, *IDENTITY]
