# SPDX-License-Identifier: Apache-2.0
"""Valid frames of approved flows for each program: what mutants are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from frames import ECHO_REPLY, ECT0, Frame, Icmp, Raw, Tcp
from tables.arriving import arriving
from tables.case import ACK_DATA, DATAGRAM, PING, handed_over, sent
from tables.direct import plain
from tables.from_nic import ANSWER, PONG, RESPONSE, UNCHECKED, carried, covered, inner
from tables.from_pod import LOCAL_DATA, LOCAL_DATAGRAM
from tables.leaving import leaving, left
from world import (
    APPROVED,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NIC,
    NIC_MAC,
    OTHER_REMOTE,
    PING_FLOW,
    POD,
    ROUTER_MAC,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
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
REPLY_BACK = replace(
    handed_over(Tcp(source=8080, dest=40002), source_mac=NEIGHBOUR.mac, dest_mac=POD.mac),
    source=NEIGHBOUR.address,
    destination=POD.address,
)
BASES = {
    Program.FROM_POD: [
        *bases(
            VETH,
            *(sent(transport) for transport in (ACK_DATA, DATAGRAM, PING)),
            *(sent(transport, destination=OTHER_REMOTE) for transport in (ACK_DATA, DATAGRAM)),
            sent(replace(DATAGRAM, payload=BIG), tos=0xB8 | ECT0),
            sent(Icmp(kind=ECHO_REPLY, identifier=78)),
            handed_over(LOCAL_DATA),
            handed_over(LOCAL_DATAGRAM),
        ),
        *bases(NEIGHBOUR_VETH, REPLY_BACK),
    ],
    Program.FROM_NIC: bases(
        NIC,
        *(carried(inner(transport)) for transport in (RESPONSE, ANSWER, PONG)),
        *(plain(transport, source=OTHER_REMOTE) for transport in (RESPONSE, ANSWER, PONG)),
        carried(inner(replace(ANSWER, payload=BIG), tos=ECT0), tos=3),
        *(wrap(inner(UNCHECKED)) for wrap in (carried, covered)),
        carried(inner(Icmp(identifier=78))),
        carried(inner(Raw(132, bytes(40)))),
    ),
    Program.TO_POD: [
        *bases(VETH, *(arriving(transport) for transport in (RESPONSE, ANSWER, PONG)), REPLY_BACK),
        *bases(NEIGHBOUR_VETH, handed_over(LOCAL_DATA), handed_over(LOCAL_DATAGRAM)),
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
FLOWS = [
    *APPROVED.flows,
    *(
        Approval(tuple=replace(flow, remote=OTHER_REMOTE))
        for flow in (TCP_FLOW, UDP_FLOW, PING_FLOW)
    ),
]
