# SPDX-License-Identifier: Apache-2.0
"""What comes out of the kernel path: egress of a pod's veth and of the VXLAN device.

Both programs leave every packet as it is; what they change is the flow records.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from frames import ACK, ARP, ECHO_REPLY, FIN, IPV6, MF, RST, SYN, Frame, Icmp, Raw, Tcp, Udp
from world import (
    APPROVED,
    BRIDGE_MAC,
    LOCAL_TCP,
    LOCAL_TCP_BACK,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    OVERLAY,
    OVERLAY_MAC,
    PEER,
    PING_FLOW,
    PINGED_FLOW,
    POD,
    REMOTE,
    STRANGER,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
)

from tables.case import ACK_DATA, DATAGRAM, PING, Case, handed_over, only, sent
from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.programs import Constants

UNKNOWN = only()
NOW = 0


def leaving(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame of POD for REMOTE at the VXLAN device."""
    return sent(
        transport, **{"source_mac": OVERLAY_MAC, "dest_mac": PEER.vtep_mac, "ttl": 63, **changes}
    )


def arriving(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame of REMOTE for POD at the pod's veth."""
    base = Frame(
        source_mac=BRIDGE_MAC,
        dest_mac=POD.mac,
        source=REMOTE,
        destination=POD.address,
        ttl=62,
        transport=transport,
    )
    return replace(base, **changes)


def to_overlay(verdict: Verdict, fact: str, frame: Frame | bytes, **more: Any) -> Case:
    """A row for the VXLAN device."""
    more = {"world": UNKNOWN, **more}
    return Case(
        program=Program.TO_OVERLAY, verdict=verdict, fact=fact, frame=frame, ifindex=OVERLAY, **more
    )


def to_pod(verdict: Verdict, fact: str, frame: Frame | bytes, **more: Any) -> Case:
    """A row for POD's veth."""
    more = {"world": UNKNOWN, "ifindex": VETH, **more}
    return Case(program=Program.TO_POD, verdict=verdict, fact=fact, frame=frame, **more)


def record(*flows: Approval) -> frozenset[Approval]:
    """The flow records after a run."""
    return frozenset(flows)


REPLY, ANSWER = Tcp(source=80, dest=40000), Udp(source=53, dest=40001)
PONG = Icmp(kind=ECHO_REPLY, identifier=77)
BOTH, OLD = Approval(tuple=TCP_FLOW), Approval(tuple=TCP_FLOW, out=500, into=500)

LEARNED_OUT = [
    to_overlay(Verdict.LEARNED, fact, leaving(transport), flows=record(flow), world=world)
    for fact, transport, world, flow in (
        ("TCP", ACK_DATA, UNKNOWN, Approval(tuple=TCP_FLOW, out=NOW, into=None)),
        ("UDP", DATAGRAM, UNKNOWN, Approval(tuple=UDP_FLOW, out=NOW, into=None)),
        ("an echo request", PING, UNKNOWN, Approval(tuple=PING_FLOW, out=NOW, into=None)),
        (
            "an echo reply",
            Icmp(kind=ECHO_REPLY, identifier=78),
            UNKNOWN,
            Approval(tuple=PINGED_FLOW, out=NOW, into=None),
        ),
        (
            "the second half beside the first",
            ACK_DATA,
            only(Approval(tuple=TCP_FLOW, out=None, into=5)),
            Approval(tuple=TCP_FLOW, out=NOW, into=5),
        ),
        ("an aged half anew", ACK_DATA, only(OLD), replace(OLD, out=NOW)),
        (
            "a withdrawn record loses the other half",
            ACK_DATA,
            only(replace(BOTH, epoch=6)),
            Approval(tuple=TCP_FLOW, out=NOW, into=None),
        ),
        (
            "an earlier pod's record loses the other half",
            ACK_DATA,
            only(replace(BOTH, ifindex=VETH + 100)),
            Approval(tuple=TCP_FLOW, out=NOW, into=None),
        ),
    )
]

NOT_LEARNED_OUT = [
    to_overlay(verdict, fact, frame)
    for verdict, fact, frame in (
        (Verdict.NOT_IP, "ARP", leaving(DATAGRAM, ethertype=ARP)),
        (Verdict.NOT_IP, "IPv6", leaving(DATAGRAM, ethertype=IPV6)),
        (Verdict.NO_POD, "the node's own", leaving(DATAGRAM, source=IPv4Address("10.42.1.0"))),
        (Verdict.NO_PEER, "no peer's address", leaving(DATAGRAM, destination=STRANGER)),
        (Verdict.MALFORMED, "a wrong checksum", leaving(DATAGRAM, checksum=1)),
        (Verdict.MALFORMED, "a header shorter than a header", leaving(DATAGRAM, ihl=4)),
        (Verdict.IP_OPTIONS, "IP options", leaving(DATAGRAM, options=bytes(4))),
        (Verdict.FRAGMENT, "a fragment", leaving(DATAGRAM, fragment=MF)),
        (Verdict.PROTOCOL, "SCTP", leaving(Raw(132, bytes(16)))),
        (Verdict.TCP_CONTROL, "SYN", leaving(replace(ACK_DATA, flags=SYN))),
        (Verdict.TCP_CONTROL, "SYN with ACK", leaving(replace(ACK_DATA, flags=SYN | ACK))),
        (Verdict.TCP_CONTROL, "FIN", leaving(replace(ACK_DATA, flags=FIN | ACK))),
        (Verdict.TCP_CONTROL, "no flag", leaving(replace(ACK_DATA, flags=0))),
    )
]

OTHERS_OUT = [
    to_overlay(
        Verdict.MARKED,
        "what the bypass routed is not the kernel path's, and loses the mark",
        leaving(DATAGRAM),
        mark=Constants().mark,
        marked=0,
    ),
    to_overlay(
        Verdict.LEARNED,
        "someone else's mark stays",
        leaving(DATAGRAM),
        mark=0x4000,
        flows=record(Approval(tuple=UDP_FLOW, out=NOW, into=None)),
    ),
    to_overlay(
        Verdict.NO_AGENT,
        "the lease has run out",
        leaving(DATAGRAM),
        world=replace(UNKNOWN, lease=-1),
    ),
    to_overlay(
        Verdict.TCP_CONTROL,
        "RST notes a flow that was bypassed",
        leaving(replace(ACK_DATA, flags=RST)),
        world=only(BOTH),
        flows=record(),
        resets=frozenset([TCP_FLOW]),
    ),
    to_overlay(
        Verdict.TCP_CONTROL,
        "RST of a flow that was never bypassed is conntrack's alone",
        leaving(replace(ACK_DATA, flags=RST | ACK)),
        world=only(replace(BOTH, into=None)),
        flows=record(),
    ),
]

LEARNED_IN = [
    to_pod(Verdict.LEARNED, fact, arriving(transport), flows=record(flow), world=world)
    for fact, transport, world, flow in (
        ("TCP", REPLY, UNKNOWN, Approval(tuple=TCP_FLOW, out=None, into=NOW)),
        ("UDP", ANSWER, UNKNOWN, Approval(tuple=UDP_FLOW, out=None, into=NOW)),
        ("an echo reply", PONG, UNKNOWN, Approval(tuple=PING_FLOW, out=None, into=NOW)),
        (
            "an echo request",
            Icmp(identifier=78),
            UNKNOWN,
            Approval(tuple=PINGED_FLOW, out=None, into=NOW),
        ),
        (
            "the second half beside the first",
            REPLY,
            only(Approval(tuple=TCP_FLOW, out=5, into=None)),
            Approval(tuple=TCP_FLOW, out=5, into=NOW),
        ),
        (
            "a withdrawn record loses the other half",
            REPLY,
            only(replace(BOTH, epoch=6)),
            Approval(tuple=TCP_FLOW, out=None, into=NOW),
        ),
    )
]

LOCAL = [
    to_pod(
        Verdict.LEARNED,
        "from a pod of this node: its outbound half and the receiver's inbound half",
        handed_over(Tcp(source=40002, dest=8080)),
        ifindex=NEIGHBOUR_VETH,
        flows=record(
            Approval(tuple=LOCAL_TCP, out=NOW, into=None),
            Approval(tuple=LOCAL_TCP_BACK, out=None, into=NOW, ifindex=NEIGHBOUR_VETH),
        ),
    ),
    to_pod(
        Verdict.LEARNED,
        "the answer of a pod of this node completes both records",
        replace(
            handed_over(Tcp(source=8080, dest=40002)),
            source=NEIGHBOUR.address,
            destination=POD.address,
        ),
        world=only(
            Approval(tuple=LOCAL_TCP, out=4, into=None),
            Approval(tuple=LOCAL_TCP_BACK, out=None, into=4, ifindex=NEIGHBOUR_VETH),
        ),
        flows=record(
            Approval(tuple=LOCAL_TCP, out=4, into=NOW),
            Approval(tuple=LOCAL_TCP_BACK, out=NOW, into=4, ifindex=NEIGHBOUR_VETH),
        ),
    ),
    to_pod(
        Verdict.TCP_CONTROL,
        "RST between pods of this node ends both records",
        handed_over(Tcp(source=40002, dest=8080, flags=RST)),
        world=APPROVED,
        ifindex=NEIGHBOUR_VETH,
        flows=APPROVED.flows
        - {
            Approval(tuple=LOCAL_TCP),
            Approval(tuple=LOCAL_TCP_BACK, ifindex=NEIGHBOUR_VETH),
        },
        resets=frozenset([LOCAL_TCP, LOCAL_TCP_BACK]),
    ),
]

NOT_LEARNED_IN = [
    to_pod(verdict, fact, frame)
    for verdict, fact, frame in (
        (Verdict.NOT_IP, "ARP", arriving(ANSWER, ethertype=ARP)),
        (Verdict.NO_POD, "an address that is not this pod's", arriving(ANSWER, destination=REMOTE)),
        (
            Verdict.NO_POD,
            "a neighbour's, flooded by the bridge",
            arriving(ANSWER, destination=NEIGHBOUR.address),
        ),
        (Verdict.NO_PEER, "from outside", arriving(ANSWER, source=STRANGER)),
        (Verdict.MALFORMED, "a wrong checksum", arriving(ANSWER, checksum=1)),
        (Verdict.IP_OPTIONS, "IP options", arriving(ANSWER, options=bytes(4))),
        (Verdict.FRAGMENT, "a fragment", arriving(ANSWER, fragment=185)),
        (Verdict.PROTOCOL, "SCTP", arriving(Raw(132, bytes(16)))),
        (Verdict.TCP_CONTROL, "SYN with ACK", arriving(replace(REPLY, flags=SYN | ACK))),
    )
]

OTHERS_IN = [
    to_pod(
        Verdict.NO_AGENT,
        "the lease has run out",
        arriving(ANSWER),
        world=replace(UNKNOWN, lease=-1),
    ),
    to_pod(
        Verdict.TCP_CONTROL,
        "RST notes a flow that was bypassed",
        arriving(replace(REPLY, flags=RST)),
        world=only(BOTH),
        flows=record(),
        resets=frozenset([TCP_FLOW]),
    ),
]

CASES = [
    *LEARNED_OUT,
    *NOT_LEARNED_OUT,
    *OTHERS_OUT,
    *LEARNED_IN,
    *LOCAL,
    *NOT_LEARNED_IN,
    *OTHERS_IN,
]
