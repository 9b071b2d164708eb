# SPDX-License-Identifier: Apache-2.0
"""Which flows are approved: the same rules for what a pod sends and for what reaches the node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import ACK, PSH, RST, SYN, Frame
from world import (
    APPROVED,
    LOCAL_TCP,
    NEIGHBOUR_VETH,
    PING_FLOW,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    World,
)

from tables import from_nic, from_pod
from tables.case import (
    ACK_DATA,
    DATAGRAM,
    PING,
    Case,
    handed_back,
    handed_over,
    only,
    sent,
    without,
)
from vxlane.datapath.abi import Verdict

FORGOTTEN = without(APPROVED, TCP_FLOW)
RESET = replace(APPROVED, resets=frozenset([TCP_FLOW]))


def both_ways(
    verdict: Verdict, fact: str, out: Frame, into: Frame, *worlds: World, **more: Any
) -> list[Case]:
    """Two rows: a frame of POD and its counterpart from REMOTE, each in its own world."""
    for_out, for_into = worlds or (APPROVED, APPROVED)
    return [
        from_pod.case(verdict, fact, out, world=for_out, **more),
        from_nic.case(verdict, fact, from_nic.carried(into), world=for_into, **more),
    ]


def tcp(fact: str, flags: int, world: World = APPROVED, **more: Any) -> list[Case]:
    """Two rows: a control segment each way."""
    out = sent(replace(ACK_DATA, flags=flags))
    into = from_nic.inner(replace(from_nic.RESPONSE, flags=flags))
    return both_ways(Verdict.TCP_CONTROL, fact, out, into, world, world, **more)


CONTROL = [
    *tcp("SYN forgets the flow and its reset", SYN, RESET, flows=FORGOTTEN, resets=frozenset()),
    *(
        from_pod.case(
            Verdict.TCP_CONTROL,
            f"SYN {fact} forgets the flow and its reset",
            replace(frame, transport=replace(frame.transport, flags=SYN)),
            ifindex=ifindex,
            world=replace(APPROVED, resets=frozenset([LOCAL_TCP])),
            flows=without(APPROVED, LOCAL_TCP),
            resets=frozenset(),
        )
        for fact, frame, ifindex in (
            ("to a neighbour", handed_over(from_pod.LOCAL_DATA), VETH),
            ("of a neighbour", handed_back(from_pod.LOCAL_REPLY), NEIGHBOUR_VETH),
        )
    ),
    *tcp("SYN with ACK answers a SYN, which has done so", SYN | ACK),
    *tcp("RST, which its receiver may yet refuse", RST),
    *tcp("RST with ACK", RST | ACK),
    *tcp("no flag", 0),
    *tcp("data without ACK", PSH),
]

UNKNOWN = [
    *both_ways(
        Verdict.FLOW_UNKNOWN,
        "another port",
        sent(replace(ACK_DATA, dest=81)),
        from_nic.inner(replace(from_nic.RESPONSE, source=81)),
    ),
    *both_ways(
        Verdict.FLOW_UNKNOWN,
        "another echo",
        sent(replace(PING, identifier=79)),
        from_nic.inner(replace(from_nic.PONG, identifier=79)),
    ),
    *both_ways(
        Verdict.FLOW_UNKNOWN,
        "an echo whose other direction is approved",
        sent(replace(PING, identifier=78)),
        from_nic.inner(replace(from_nic.PONG, identifier=78)),
    ),
]

TCP = TCP_FLOW, ACK_DATA, from_nic.RESPONSE
UDP = UDP_FLOW, DATAGRAM, from_nic.ANSWER
ECHO = PING_FLOW, PING, from_nic.PONG

# Ages in seconds of the half that the packet belongs to and of the other one.
AGES = [
    row
    for verdict, fact, (flow, out, into), this, other in (
        (Verdict.FLOW_HALF, "TCP whose own half is missing", TCP, None, 1),
        (Verdict.FLOW_HALF, "TCP whose other half is missing", TCP, 1, None),
        (Verdict.FLOW_HALF, "UDP whose own half is missing", UDP, None, 1),
        (Verdict.FLOW_HALF, "an echo whose other half is missing", ECHO, 1, None),
        (Verdict.FLOW_AGED, "TCP whose own half is 30 s old", TCP, 31, 1),
        (Verdict.FLOW_AGED, "TCP whose other half is 30 s old", TCP, 1, 31),
        (Verdict.FLOW_AGED, "UDP whose own half is 10 s old", UDP, 11, 1),
        (Verdict.FLOW_AGED, "UDP that nobody answers, after 10 s", UDP, 11, None),
        (Verdict.FLOW_AGED, "an echo after 10 s", ECHO, 11, 1),
        (Verdict.FLOW_AGED, "an echo whose other half is 10 s old", ECHO, 1, 11),
    )
    for row in both_ways(
        verdict,
        fact,
        sent(out),
        from_nic.inner(into),
        only(Approval(tuple=flow, out=this, into=other)),
        only(Approval(tuple=flow, out=other, into=this)),
    )
]

SHUT = only(Approval(tuple=TCP_FLOW, is_open=False))
WITHDRAWN = [
    *both_ways(
        Verdict.FLOW_HALF,
        "TCP whose handshake's ACK conntrack has not seen",
        sent(ACK_DATA),
        from_nic.inner(from_nic.RESPONSE),
        SHUT,
        SHUT,
    ),
    *(
        row
        for fact, flow in (
            ("approved in an earlier epoch", Approval(tuple=TCP_FLOW, epoch=6)),
            (
                "approved for an earlier pod of this address",
                Approval(tuple=TCP_FLOW, ifindex=VETH + 100),
            ),
        )
        for row in both_ways(
            Verdict.FLOW_WITHDRAWN,
            fact,
            sent(ACK_DATA),
            from_nic.inner(from_nic.RESPONSE),
            only(flow),
            only(flow),
        )
    ),
]

CASES = [*CONTROL, *UNKNOWN, *AGES, *WITHDRAWN]
