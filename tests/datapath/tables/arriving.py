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
    ECHO_REQUEST,
    ICMP,
    RST,
    SYN,
    Frame,
    Icmp,
    Raw,
    Tcp,
    Udp,
)
from world import (
    BRIDGE_MAC,
    EPOCH,
    LOCAL_TCP,
    LOCAL_UDP,
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
    local_flow,
)

from tables.case import Case, handed_back, handed_over, noted, only
from tables.from_pod import LOCAL_ANSWER, LOCAL_DATA, LOCAL_DATAGRAM, LOCAL_REPLY
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


def switched(verdict: Verdict, fact: str, frame: Frame, **more: Any) -> Case:
    """A row of what one pod of this node gets of the other."""
    ifindex = VETH if frame.destination == POD.address else NEIGHBOUR_VETH
    return to_pod(verdict, fact, frame, **{"hops": 0, "ifindex": ifindex, **more})


# A flow, what POD sends of it, who is the low end of its key, and what NEIGHBOUR does.
LOCAL_FLOWS = {
    "TCP": (Approval(tuple=LOCAL_TCP), LOCAL_DATA, LOCAL_REPLY),
    "UDP": (Approval(tuple=LOCAL_UDP), LOCAL_DATAGRAM, LOCAL_ANSWER),
    "an echo": (
        Approval(tuple=local_flow(ICMP, 79, ECHO_REQUEST)),
        Icmp(identifier=79),
        Icmp(kind=ECHO_REPLY, identifier=79),
    ),
    "an echo of the high end": (
        Approval(tuple=local_flow(ICMP, 80, ECHO_REPLY)),
        Icmp(kind=ECHO_REPLY, identifier=80),
        Icmp(identifier=80),
    ),
}
LOCAL = [
    row
    for kind, (flow, there, back) in LOCAL_FLOWS.items()
    for first, sends, answers, one, other in (
        ("a pod of this node", handed_over, handed_back, there, back),
        ("its neighbour", handed_back, handed_over, back, there),
    )
    for owner in [flow if sends is handed_over else flow.mirrored]
    for row in (
        switched(
            Verdict.LEARNED,
            f"{kind} that {first} sends first is that one's",
            sends(one),
            flows=record(replace(owner, out=NOW, into=None)),
        ),
        switched(
            Verdict.LEARNED,
            f"{kind} that {first} sends again",
            sends(one),
            world=only(replace(owner, out=5, into=5)),
            flows=record(replace(owner, out=NOW, into=5)),
        ),
        switched(
            Verdict.LEARNED,
            f"{kind} that is answered to {first} comes in",
            answers(other),
            world=only(replace(owner, out=4, into=None)),
            flows=record(replace(owner, out=4, into=NOW)),
        ),
    )
]

NEXT_DOOR = [
    *(
        switched(
            Verdict.LEARNED,
            f"a record {fact} is replaced by what a pod of this node answers",
            handed_back(LOCAL_REPLY),
            world=only(Approval(tuple=LOCAL_TCP, **change)),
            flows=record(Approval(tuple=LOCAL_TCP, out=None, into=NOW)),
        )
        for fact, change in (
            ("of an earlier epoch", {"epoch": EPOCH - 1}),
            ("of an earlier pod", {"ifindex": VETH + 100}),
            ("of an earlier neighbour", {"neighbour": NEIGHBOUR_VETH + 100}),
        )
    ),
    *(
        switched(
            Verdict.TCP_CONTROL,
            f"RST of the {sender} end ends the record of the {which} one",
            frame,
            world=only(owner),
            flows=record(),
            resets=frozenset([owner.tuple]),
        )
        for sender, frame in (
            ("low", handed_over(replace(LOCAL_DATA, flags=RST))),
            ("high", handed_back(replace(LOCAL_REPLY, flags=RST))),
        )
        for which, owner in (
            ("low", Approval(tuple=LOCAL_TCP)),
            ("high", Approval(tuple=LOCAL_TCP).mirrored),
        )
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

CASES = [*LEARNED_IN, *LOCAL, *NEXT_DOOR, *NOT_LEARNED_IN, *OTHERS_IN]
