# SPDX-License-Identifier: Apache-2.0
"""Flows of which the local pod, or the one that was seen first, is the high end of the key.

In the other tables it is the low one: a key has the lower address first, and POD's is lower than
REMOTE's and NEIGHBOUR's.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from frames import ACK, ECHO_REPLY, FIN, Icmp
from world import (
    APPROVED,
    END_POD,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    PING_FLOW,
    PINGED_FLOW,
    POD,
    REMOTE,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    Tuple,
)

from tables import from_nic, from_pod
from tables.arriving import LOCAL_FLOWS, arriving, to_pod
from tables.case import ACK_DATA, DATAGRAM, PING, handed_back, handed_over, only, sent
from tables.from_nic import ANSWER, PONG, RESPONSE, inner
from tables.leaving import NOW, leaving, record, to_nic
from vxlane.datapath.abi import Verdict

LOW = IPv4Address("10.42.2.1")
"""A pod of PEER's, whose address is lower than POD's: the last octet counts first."""


def lowered(flow: Tuple) -> Approval:
    """The flow with LOW."""
    return Approval(tuple=replace(flow, remote=LOW))


WITH_PEER = {
    "TCP": (lowered(TCP_FLOW), ACK_DATA, RESPONSE),
    "UDP": (lowered(UDP_FLOW), DATAGRAM, ANSWER),
    "an echo of the pod's": (lowered(PING_FLOW), PING, PONG),
    "an echo of the peer's": (
        lowered(PINGED_FLOW),
        Icmp(kind=ECHO_REPLY, identifier=78),
        Icmp(identifier=78),
    ),
}
TO_PEER = [
    row
    for kind, (flow, out, into) in WITH_PEER.items()
    for row in (
        from_pod.encapsulated(
            f"{kind} to a lower address", sent(out, destination=LOW), world=only(flow)
        ),
        from_nic.decapsulated(
            f"{kind} from a lower address",
            inner(into, source=LOW),
            world=only(flow),
        ),
        to_nic(
            Verdict.LEARNED,
            f"{kind} to a lower address",
            leaving(out, destination=LOW),
            flows=record(replace(flow, out=NOW, into=None)),
        ),
        to_pod(
            Verdict.LEARNED,
            f"{kind} from a lower address",
            arriving(into, source=LOW),
            flows=record(replace(flow, out=None, into=NOW)),
        ),
    )
]
OTHER_ECHO = [
    from_pod.case(
        Verdict.FLOW_UNKNOWN,
        "an echo to a lower address, whose other direction is approved",
        sent(replace(PING, identifier=78), destination=LOW),
        world=only(lowered(PINGED_FLOW)),
    ),
    from_pod.case(
        Verdict.FLOW_UNKNOWN,
        "an echo of a neighbour's, whose other direction is approved",
        handed_back(Icmp(identifier=79)),
        ifindex=NEIGHBOUR_VETH,
        world=only(LOCAL_FLOWS["an echo"][0]),
    ),
]

TO_NEIGHBOUR = [
    row
    for kind, (flow, there, back) in LOCAL_FLOWS.items()
    for which, owner in (("low", flow), ("high", flow.mirrored))
    for row in (
        from_pod.case(
            Verdict.SWITCHED,
            f"{kind} of the low end, whose {which} one was seen first",
            handed_over(there),
            world=only(owner),
        ),
        from_pod.case(
            Verdict.SWITCHED,
            f"{kind} of the high end, whose {which} one was seen first",
            handed_back(back),
            ifindex=NEIGHBOUR_VETH,
            world=only(owner),
        ),
    )
]

MOVED = replace(APPROVED, pods=(POD, replace(NEIGHBOUR, address=REMOTE)))
FROM_MOVED = [
    from_pod.case(
        Verdict.FLOW_UNKNOWN,
        f"{fact} of a pod that was a peer's, by a record of that time",
        handed_back(transport, source=REMOTE),
        ifindex=NEIGHBOUR_VETH,
        world=MOVED,
    )
    for fact, transport in (
        ("UDP", ANSWER),
        ("TCP", RESPONSE),
        ("FIN", replace(RESPONSE, flags=FIN | ACK)),
    )
]

TO_MOVED = [
    to_nic(
        Verdict.LEARNED,
        "to a peer's pod that was a neighbour and has sent first then",
        leaving(ACK_DATA),
        world=only(
            Approval(
                tuple=TCP_FLOW.reversed, ifindex=NEIGHBOUR_VETH, neighbour=VETH, closing=END_POD
            )
        ),
        flows=record(Approval(tuple=TCP_FLOW, out=NOW, into=None)),
    )
]
ECHOED = [
    from_nic.case(
        Verdict.NO_PEER,
        "an approved flow's packet to the peer, that comes from there",
        from_nic.carried(inner(ACK_DATA, source=POD.address, destination=REMOTE)),
    )
]

CASES = [*TO_PEER, *OTHER_ECHO, *TO_NEIGHBOUR, *FROM_MOVED, *TO_MOVED, *ECHOED]
