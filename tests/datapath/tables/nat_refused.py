# SPDX-License-Identifier: Apache-2.0
"""Translated flows that stay on the kernel path, or go back to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import RST, SYN
from world import (
    APPROVED,
    OTHER_REMOTE,
    ROUTER_MAC,
    TCP_FLOW,
    Approval,
    World,
)

from tables import from_nic, from_pod
from tables.case import ACK_DATA, Case, only, sent
from tables.nat import (
    MASQUERADED_TCP,
    NODE_PORT,
    SERVICE,
    SERVICE_TCP,
    SERVICE_UDP,
    at_pod,
    into,
    linked,
    out,
    peer_sends,
    pod_sends,
    untaken,
)
from vxlane.datapath.abi import Verdict

ENTRY = SERVICE_TCP.behind or SERVICE_TCP.tuple, SERVICE_TCP.tuple
"""In `translations`: left by an earlier connection."""
ADMISSION = [
    *untaken(
        Verdict.FLOW_HALF,
        "translated UDP that was seen once",
        replace(SERVICE_UDP, is_confirmed=False),
    ),
    *untaken(
        Verdict.FLOW_HALF,
        "translated TCP without its way in",
        replace(SERVICE_TCP, into=None),
        world=replace(only(replace(SERVICE_TCP, into=None)), strays=frozenset([ENTRY])),
    ),
    *untaken(
        Verdict.FLOW_HALF, "translated TCP without its way out", replace(SERVICE_TCP, out=None)
    ),
    *untaken(
        Verdict.FLOW_HALF,
        "translated TCP whose handshake's ACK conntrack has not seen",
        replace(SERVICE_TCP, is_open=False),
    ),
    *untaken(Verdict.FLOW_AGED, "translated UDP after 0.9 s", replace(SERVICE_UDP, out=1, into=1)),
    *untaken(
        Verdict.FLOW_AGED,
        "translated UDP whose approval is to last less",
        SERVICE_UDP,
        world=replace(only(SERVICE_UDP), revalidate_datagram=0),
    ),
    *untaken(Verdict.FLOW_AGED, "translated TCP after 30 s", replace(SERVICE_TCP, out=31, into=31)),
    *untaken(
        Verdict.FLOW_WITHDRAWN,
        "translated, and approved in an earlier epoch",
        replace(SERVICE_TCP, epoch=6),
    ),
    *untaken(
        Verdict.FLOW_WITHDRAWN,
        "translated, and approved for an earlier pod of this address",
        replace(SERVICE_TCP, ifindex=999),
    ),
    *untaken(
        Verdict.JUDGED,
        "something acts on every translated packet",
        SERVICE_TCP,
        world=replace(only(SERVICE_TCP), judged_nat=True),
    ),
    out("translated UDP that is never answered", replace(SERVICE_UDP, into=None)),
    into("translated UDP that is never asked", replace(SERVICE_UDP, out=None)),
    out("translated TCP outlives UDP", replace(SERVICE_TCP, out=28, into=28)),
    out(
        "translated TCP of which no packet was seen twice",
        replace(SERVICE_TCP, is_confirmed=False),
    ),
    from_pod.encapsulated(
        "what acts on every translated packet leaves the others alone",
        sent(ACK_DATA),
        world=replace(APPROVED, judged_nat=True),
    ),
]


UNFIT = [
    *(
        row
        for fact, length in (("beyond the packet", 28), ("short of its header", 7))
        for row in untaken(
            Verdict.MALFORMED,
            f"translated UDP of a length {fact}",
            SERVICE_UDP,
            changes={"length": length},
        )
    ),
    from_pod.case(
        Verdict.OTHER_MAC,
        "to a Service by another router than the node",
        pod_sends(SERVICE_TCP, dest_mac=ROUTER_MAC),
        world=only(SERVICE_TCP),
    ),
    from_pod.case(
        Verdict.TTL,
        "to a Service, with TTL 1",
        replace(pod_sends(SERVICE_TCP), ttl=1),
        world=only(SERVICE_TCP),
    ),
    from_nic.case(
        Verdict.TTL,
        "of a Service, with TTL 1",
        from_nic.carried(replace(peer_sends(SERVICE_TCP), ttl=1)),
        world=only(SERVICE_TCP),
    ),
    from_pod.case(
        Verdict.TOO_BIG,
        "to a Service, above the overlay's MTU",
        pod_sends(SERVICE_UDP, payload=bytes(1423)),
        world=only(SERVICE_UDP),
    ),
    from_nic.case(
        Verdict.WRONG_VTEP,
        "a Service's answer by the tunnel of another peer",
        from_nic.carried(replace(peer_sends(SERVICE_TCP), source=OTHER_REMOTE)),
        world=only(SERVICE_TCP),
    ),
]

# A peer's view of SERVICE_TCP, and a record that says something else of it.
SEEN = SERVICE_TCP.behind or SERVICE_TCP.tuple
MOVED_ON = replace(SERVICE_TCP, behind=replace(SEEN, remote=OTHER_REMOTE))
# A Service's flow has the 5-tuple TCP_FLOW on the wire, so the direct flow was moved to port 1024.
FIRST = Approval(tuple=replace(TCP_FLOW, remote=SERVICE, remote_port=443), behind=TCP_FLOW)
SECOND = Approval(tuple=TCP_FLOW, behind=replace(TCP_FLOW, local_port=1024))
DIRECT_FLOW = Approval(tuple=TCP_FLOW)


def came(verdict: Verdict, fact: str, flow: Approval, world: World, **more: Any) -> Case:
    """A row of what PEER sends of `flow`."""
    return from_nic.case(verdict, fact, from_nic.carried(peer_sends(flow)), world=world, **more)


ENTRIES = [
    came(
        Verdict.FLOW_UNKNOWN,
        "an entry of a flow that has another backend now",
        SERVICE_TCP,
        replace(only(MOVED_ON), strays=frozenset([(SEEN, SERVICE_TCP.tuple)])),
    ),
    came(
        Verdict.FLOW_UNKNOWN,
        "an entry of a flow that is no longer translated",
        SERVICE_TCP,
        replace(
            only(replace(SERVICE_TCP, behind=None)),
            strays=frozenset([(SEEN, SERVICE_TCP.tuple)]),
        ),
    ),
    came(
        Verdict.FLOW_UNKNOWN,
        "an entry without a record",
        SERVICE_TCP,
        replace(only(), strays=frozenset([(SEEN, SERVICE_TCP.tuple)])),
    ),
    came(
        Verdict.NO_POD,
        "for the node's address, with an entry without a record",
        NODE_PORT,
        replace(only(), strays=frozenset([(NODE_PORT.behind or TCP_FLOW, NODE_PORT.tuple)])),
    ),
    came(Verdict.NO_POD, "for the node's address, of no flow", NODE_PORT, only()),
    came(
        Verdict.DECAPSULATED,
        "a flow that is not translated comes before an entry",
        DIRECT_FLOW,
        replace(only(DIRECT_FLOW), strays=frozenset([(TCP_FLOW, SERVICE_TCP.tuple)])),
        output=at_pod(peer_sends(DIRECT_FLOW), DIRECT_FLOW),
    ),
    into("a Service's flow beside a direct one that was moved", FIRST, world=only(FIRST, SECOND)),
    into("a direct flow that was moved, beside a Service's", SECOND, world=only(FIRST, SECOND)),
    out("out of a Service's flow beside a direct one", FIRST, world=only(FIRST, SECOND)),
    out("out of a direct flow beside a Service's", SECOND, world=only(FIRST, SECOND)),
    from_nic.case(
        Verdict.NOT_OVERLAY,
        "for the node's address from a peer on our link, of no flow",
        replace(peer_sends(NODE_PORT), source_mac=ROUTER_MAC, dest_mac="02:00:00:00:00:11"),
        world=linked(only()),
    ),
]


def control(fact: str, flags: int, flow: Approval, world: World) -> list[Case]:
    """Two rows of TCP flags, out and in."""
    return [
        from_pod.case(
            Verdict.TCP_CONTROL,
            fact,
            pod_sends(flow, flags=flags),
            world=world,
        ),
        from_nic.case(
            Verdict.TCP_CONTROL,
            fact,
            from_nic.carried(peer_sends(flow, flags=flags)),
            world=world,
        ),
    ]


ALL = only(SERVICE_TCP, SERVICE_UDP, MASQUERADED_TCP, NODE_PORT, FIRST, SECOND)
CONTROL = [
    from_pod.case(
        Verdict.TCP_CONTROL,
        "SYN forgets a translated flow",
        pod_sends(SERVICE_TCP, flags=SYN),
        world=ALL,
        flows=ALL.flows - {SERVICE_TCP},
    ),
    from_nic.case(
        Verdict.TCP_CONTROL,
        "SYN of a peer begins no translated flow, and so forgets none",
        from_nic.carried(peer_sends(SERVICE_TCP, flags=SYN)),
        world=ALL,
    ),
    *control("RST of a translated flow, which may be refused", RST, SERVICE_TCP, ALL),
]

CASES = [*ADMISSION, *UNFIT, *ENTRIES, *CONTROL]
