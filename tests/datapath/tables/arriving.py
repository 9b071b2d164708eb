# SPDX-License-Identifier: Apache-2.0
"""What reaches a pod after the kernel path: inbound halves, and both of two pods of one node.

The program leaves every packet as it is; what it changes is the flow records.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import (
    ACK,
    ARP,
    ECHO_REPLY,
    RST,
    SYN,
    Frame,
    Icmp,
    Raw,
    Tcp,
    Udp,
)
from world import (
    APPROVED,
    BRIDGE_MAC,
    EPOCH,
    LOCAL_TCP,
    LOCAL_TCP_BACK,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    PING_FLOW,
    PINGED_FLOW,
    POD,
    REMOTE,
    SEQUENCE,
    STRANGER,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
)

from tables.case import Case, handed_over, noted, only
from tables.leaving import BOTH, NOW, SHUT, UNKNOWN, record
from vxlane.datapath.abi import Program, Verdict


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


def to_pod(verdict: Verdict, fact: str, frame: Frame, **more: Any) -> Case:
    """A row for POD's veth."""
    note = noted(frame, more.pop("hops", 1))
    more = {"world": UNKNOWN, "ifindex": VETH, "note": note, **more}
    return Case(program=Program.TO_POD, verdict=verdict, fact=fact, frame=frame, **more)


REPLY, ANSWER = Tcp(source=80, dest=40000), Udp(source=53, dest=40001)
PONG = Icmp(kind=ECHO_REPLY, identifier=77)


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
        hops=0,
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
            dest_mac=POD.mac,
        ),
        hops=0,
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
        hops=0,
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
    )
] + [
    to_pod(
        Verdict.PROTOCOL,
        "SCTP",
        arriving(Raw(132, bytes(16))),
        note=noted(arriving(ANSWER), 1),
    )
]

OTHERS_IN = [
    to_pod(Verdict.NO_STAMP, "the node's own, or another device's", arriving(ANSWER), note=None),
    *(
        to_pod(verdict, fact, arriving(ANSWER), note=replace(noted(arriving(ANSWER), 1), **changes))
        for verdict, fact, changes in (
            (Verdict.STALE_EPOCH, "it went in before a withdrawal", {"epoch": EPOCH - 1}),
            (Verdict.NO_PEER, "another source", {"source": STRANGER}),
            (Verdict.CHANGED, "two hops", {"ttl": 64}),
            (Verdict.CHANGED, "a DSCP set on the way", {"tos": 0x28}),
        )
    ),
    to_pod(
        Verdict.CHANGED,
        "between pods of this node, by way of a router",
        handed_over(Tcp(source=40002, dest=8080)),
        ifindex=NEIGHBOUR_VETH,
    ),
    to_pod(
        Verdict.TCP_CONTROL,
        "RST with a guessed sequence number ends no connection, but the bypass",
        arriving(replace(REPLY, flags=RST, sequence=SEQUENCE - 1)),
        world=only(BOTH),
        flows=record(),
    ),
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
    to_pod(
        Verdict.TCP_CONTROL,
        "SYN with ACK is the other half",
        arriving(replace(REPLY, flags=SYN | ACK)),
        world=only(replace(SHUT, out=5)),
        flows=record(replace(SHUT, out=5, into=NOW)),
    ),
]

CASES = [*LEARNED_IN, *LOCAL, *NOT_LEARNED_IN, *OTHERS_IN]
