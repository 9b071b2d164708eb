# SPDX-License-Identifier: Apache-2.0
"""Valid frames of approved flows for each program: what mutants are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from frames import ACK, ECHO_REPLY, ECT0, SYN, TCP, Frame, Icmp, Raw, Tcp
from tables import nat
from tables.arriving import arriving
from tables.case import ACK_DATA, DATAGRAM, PING, handed_back, handed_over, sent
from tables.closing import LAST_IN, LAST_OUT
from tables.direct import plain
from tables.from_nic import ANSWER, PONG, RESPONSE, UNCHECKED, carried, covered, inner
from tables.from_pod import LOCAL_ANSWER, LOCAL_DATA, LOCAL_DATAGRAM, LOCAL_REPLY
from tables.leaving import leaving, left
from tables.nat_refused import FIRST, SECOND
from world import (
    APPROVED,
    END_POD,
    END_REMOTE,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NIC,
    NIC_MAC,
    OTHER_REMOTE,
    PING_FLOW,
    POD,
    ROUTER_MAC,
    SEQUENCE,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    Tuple,
    local_flow,
)

from vxlane.datapath.abi import Program


class Base(NamedTuple):
    """A valid frame and the interface it comes by."""

    frame: bytes
    ifindex: int


def bases(ifindex: int, *frames: Frame) -> list[Base]:
    """Valid frames of one interface."""
    return [Base(bytes(frame), ifindex) for frame in frames]


BIG = bytes(1400)
REPLY_BACK = handed_back(LOCAL_REPLY)
ANSWERS = {"flags": SYN | ACK, "acknowledged": SEQUENCE}
# Each pod answers a SYN of the other one.
SYN_ACKS = (
    handed_over(Tcp(source=40005, dest=8082, **ANSWERS)),
    handed_back(Tcp(source=8081, dest=40004, **ANSWERS)),
)
BASES = {
    Program.FROM_POD: [
        *bases(
            VETH,
            *(sent(transport) for transport in (ACK_DATA, DATAGRAM, PING)),
            LAST_OUT,
            *(sent(transport, destination=OTHER_REMOTE) for transport in (ACK_DATA, DATAGRAM)),
            sent(replace(DATAGRAM, payload=BIG), tos=0xB8 | ECT0),
            sent(Icmp(kind=ECHO_REPLY, identifier=78)),
            handed_over(LOCAL_DATA),
            handed_over(LOCAL_DATAGRAM),
            SYN_ACKS[0],
        ),
        *bases(NEIGHBOUR_VETH, REPLY_BACK, handed_back(LOCAL_ANSWER), SYN_ACKS[1]),
    ],
    Program.FROM_NIC: bases(
        NIC,
        *(carried(inner(transport)) for transport in (RESPONSE, ANSWER, PONG)),
        *(plain(transport, source=OTHER_REMOTE) for transport in (RESPONSE, ANSWER, PONG)),
        carried(inner(replace(ANSWER, payload=BIG), tos=ECT0), tos=3),
        *(wrap(inner(UNCHECKED)) for wrap in (carried, covered)),
        carried(inner(Icmp(identifier=78))),
        carried(LAST_IN),
        carried(inner(Raw(132, bytes(40)))),
    ),
    Program.TO_POD: [
        *bases(
            VETH,
            *(arriving(transport) for transport in (RESPONSE, ANSWER, PONG)),
            REPLY_BACK,
            SYN_ACKS[1],
        ),
        *bases(
            NEIGHBOUR_VETH,
            handed_over(LOCAL_DATA),
            handed_over(LOCAL_DATAGRAM),
            SYN_ACKS[0],
        ),
    ],
    Program.TO_NIC: bases(
        NIC,
        *(left(leaving(transport)) for transport in (ACK_DATA, DATAGRAM, PING)),
        *(
            leaving(transport, destination=OTHER_REMOTE, source_mac=NIC_MAC, dest_mac=ROUTER_MAC)
            for transport in (ACK_DATA, DATAGRAM, PING)
        ),
    ),
}
# In an order that is the same in every process.
FLOWS = [
    *sorted(APPROVED.flows, key=str),
    *(
        Approval(tuple=replace(flow, remote=OTHER_REMOTE))
        for flow in (TCP_FLOW, UDP_FLOW, PING_FLOW)
    ),
    Approval(tuple=local_flow(TCP, 40004, 8081), opener=END_POD, is_open=False),
    Approval(tuple=local_flow(TCP, 40005, 8082), opener=END_REMOTE, is_open=False),
]


def on_link(flow: Approval) -> Approval:
    """The same flow of a pod's, and who is behind it is on our link."""
    assert flow.behind
    elsewhere = replace(flow.behind, remote=OTHER_REMOTE)
    moved = replace(flow.tuple, local_port=flow.tuple.local_port + 100)
    return replace(
        flow, tuple=moved, behind=replace(elsewhere, local_port=elsewhere.local_port + 1)
    )


TUNNELLED = [
    nat.SERVICE_TCP,
    nat.SERVICE_UDP,
    nat.MASQUERADED_TCP,
    nat.MASQUERADED_UDP,
    nat.NODE_PORT,
    FIRST,
    SECOND,
]
LINKED = [on_link(flow) for flow in (nat.SERVICE_UDP, nat.MASQUERADED_TCP)]
SWITCHED = [
    nat.LOCAL_SERVICE,
    nat.LOCAL_UDP,
    Approval(
        tuple=replace(nat.LOCAL_SERVICE.tuple, local_port=41007),
        behind=Tuple(POD.address, NEIGHBOUR.address, 41007, 8080, TCP),
        there=nat.ROUTED.there,
    ),
]
ANSWERED = [flow.mirrored for flow in SWITCHED]
# Translated flows, and valid frames of them. FIRST has the 5-tuple of TCP_FLOW on the wire.
NAT_FLOWS = [*TUNNELLED, *LINKED, *SWITCHED]
NAT_BASES = {
    Program.FROM_POD: [
        *bases(VETH, *(nat.pod_sends(flow) for flow in (*TUNNELLED, *LINKED, *SWITCHED))),
        *bases(VETH, nat.pod_sends(nat.SERVICE_UDP, checksum=0)),
        *bases(NEIGHBOUR_VETH, *(nat.pod_sends(flow, dest_mac=POD.mac) for flow in ANSWERED)),
    ],
    Program.FROM_NIC: [
        *bases(NIC, *(carried(nat.peer_sends(flow)) for flow in TUNNELLED)),
        *bases(NIC, carried(nat.peer_sends(nat.SERVICE_UDP, checksum=0))),
        *bases(
            NIC,
            *(
                replace(nat.peer_sends(flow), source_mac=ROUTER_MAC, dest_mac=NIC_MAC)
                for flow in LINKED
            ),
        ),
    ],
    Program.TO_POD: [
        *BASES[Program.TO_POD],
        *bases(
            NEIGHBOUR_VETH,
            *(nat.as_sent(nat.pod_sends(flow), flow, dest_mac=NEIGHBOUR.mac) for flow in SWITCHED),
        ),
        *bases(
            VETH,
            *(nat.as_sent(nat.pod_sends(flow), flow, dest_mac=POD.mac) for flow in ANSWERED),
        ),
    ],
}
