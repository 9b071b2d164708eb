# SPDX-License-Identifier: Apache-2.0
"""Peers on our link, which get the bypass without a tunnel: the pod's veth and the NIC."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import CE, MF, UNREACHABLE, Frame, Icmp, Raw, Tcp, Udp, vxlan
from world import (
    BRIDGE_MAC,
    DIRECT,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_REMOTE,
    POD,
    PORT,
    ROUTER_MAC,
    STRANGER,
)

from tables import from_pod
from tables.case import ACK_DATA, DATAGRAM, Case, sent
from tables.from_nic import ANSWER, FULL, GOOD, PONG, RESPONSE, case, inner
from vxlane.datapath.abi import Guard, Verdict

TO_LINK = [
    *(
        from_pod.case(
            Verdict.ROUTED,
            fact,
            frame,
            world=DIRECT,
            output=replace(frame, ttl=frame.ttl - 1),
        )
        for fact, frame in (
            ("TCP to a peer on our link", sent(ACK_DATA)),
            ("UDP to a peer on our link", sent(DATAGRAM, tos=0xB8 | CE, fragment=0)),
        )
    ),
    from_pod.case(Verdict.TTL, "TTL 1, untunnelled", sent(DATAGRAM, ttl=1), world=DIRECT),
]


def routed(fact: str, frame: Frame) -> Case:
    """A row whose frame, from a peer on our link, goes to POD."""
    output = replace(frame, source_mac=BRIDGE_MAC, dest_mac=POD.mac, ttl=frame.ttl - 1)
    return case(Verdict.ROUTED, fact, frame, world=DIRECT, output=output)


def plain(transport: Tcp | Udp | Icmp | Raw, **changes: Any) -> Frame:
    """A frame of REMOTE for POD without a tunnel."""
    return inner(transport, **{"source_mac": ROUTER_MAC, "dest_mac": NIC_MAC, **changes})


ON_OUR_LINK = [
    routed("TCP from a peer on our link", plain(RESPONSE)),
    routed("UDP from a peer on our link", plain(ANSWER, tos=CE)),
    routed("an echo reply from a peer on our link", plain(PONG)),
    case(
        Verdict.DECAPSULATED,
        "a tunnel's packet from a peer on our link",
        GOOD,
        world=DIRECT,
        output=replace(inner(ANSWER), source_mac=BRIDGE_MAC, dest_mac=POD.mac, ttl=62),
    ),
    case(
        Verdict.NOT_OVERLAY,
        "a pod's own VXLAN, on our port",
        plain(replace(ANSWER, dest=PORT, payload=vxlan(bytes(inner(ANSWER))))),
        world=DIRECT,
    ),
    case(Verdict.NOT_OVERLAY, "from a peer that is behind a tunnel", plain(RESPONSE)),
    *(
        case(verdict, fact, frame, world=DIRECT)
        for verdict, fact, frame in (
            (Verdict.NOT_OVERLAY, "from outside", plain(ANSWER, source=STRANGER)),
            (
                Verdict.NOT_OVERLAY,
                "another peer's address",
                plain(ANSWER, source=OTHER_REMOTE),
            ),
            (Verdict.NOT_OVERLAY, "for no pod", plain(ANSWER, destination=NODE_ADDRESS)),
            (
                Verdict.NOT_OVERLAY,
                "another MAC, untunnelled",
                plain(ANSWER, dest_mac=ROUTER_MAC),
            ),
            (
                Verdict.MALFORMED,
                "bytes behind it, untunnelled",
                plain(ANSWER, padding=b"\0"),
            ),
            (Verdict.FRAGMENT, "a fragment, untunnelled", plain(ANSWER, fragment=MF)),
            (
                Verdict.IP_OPTIONS,
                "IP options, untunnelled",
                plain(ANSWER, options=bytes(4)),
            ),
            (Verdict.TTL, "TTL 1, untunnelled", plain(ANSWER, ttl=1)),
            (Verdict.PROTOCOL, "an ICMP error, untunnelled", plain(Icmp(kind=UNREACHABLE))),
            (
                Verdict.TOO_BIG,
                "above the pod's MTU, untunnelled",
                plain(replace(FULL, payload=bytes(1423))),
            ),
            (
                Verdict.FLOW_UNKNOWN,
                "another port, untunnelled",
                plain(replace(RESPONSE, dest=1)),
            ),
        )
    ),
    case(
        Verdict.MARKED,
        "a mark of someone else, untunnelled",
        plain(ANSWER),
        mark=1,
        world=DIRECT,
    ),
    case(
        Verdict.GUARDED,
        "UDP to a guarded pod, untunnelled",
        plain(ANSWER),
        world=replace(DIRECT, pods=(replace(POD, guard=Guard.TO_POD),)),
    ),
]


CASES = [*TO_LINK, *ON_OUR_LINK]
