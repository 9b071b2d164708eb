# SPDX-License-Identifier: Apache-2.0
"""Connections that close: all of the end is bypassed, if conntrack can be shown copies.

What the copy is, test_shown.py tells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import ACK, CE, ECT0, FIN, SYN, Frame
from world import (
    APPROVED,
    BRIDGE_MAC,
    DIRECT,
    END_POD,
    END_REMOTE,
    HEARD_POD,
    HEARD_REMOTE,
    LOCAL_TCP,
    NEIGHBOUR,
    NO_DEVICE,
    POD,
    SEQUENCE,
    TCP_FLOW,
    Approval,
    Tuple,
    World,
)

from tables import from_nic, from_pod, nat
from tables.case import ACK_DATA, Case, handed_back, handed_over, only, sent, without
from tables.direct import plain
from tables.nat_refused import DIRECT_FLOW, FIRST, SECOND
from vxlane.datapath.abi import Program, Verdict

BOTH = END_POD | END_REMOTE
NOBODY = "03:78:6c:61:6e:65"
"""Whom a copy is for: a group that has no member."""
GONE = replace(APPROVED, vtep=NO_DEVICE)
RESET = replace(APPROVED, resets=frozenset([TCP_FLOW]))
FIN_OUT = sent(replace(ACK_DATA, flags=FIN | ACK))
FIN_IN = from_nic.inner(replace(from_nic.RESPONSE, flags=FIN | ACK))
LAST = {"flags": ACK, "payload": b"", "acknowledged": SEQUENCE}
LAST_OUT = sent(replace(ACK_DATA, **LAST))
LAST_IN = from_nic.inner(replace(from_nic.RESPONSE, **LAST))


def closing(world: World, ends: dict[Tuple, int]) -> World:
    """The same world, and those flows are closed by these ends."""
    flows = (replace(flow, closing=ends.get(flow.tuple, flow.closing)) for flow in world.flows)
    return replace(world, flows=frozenset(flows))


def without_devices(world: World) -> World:
    """The same world, and nowhere can conntrack be shown a copy."""
    pods = tuple(replace(pod, bridge=NO_DEVICE) for pod in world.pods)
    return replace(world, pods=pods, vtep=0)


def with_listener(world: World) -> World:
    """The same world, and somebody listens to conntrack's changes."""
    return replace(world, heard=True)


def aged(world: World) -> World:
    """The same world, whose approvals are too old."""
    return replace(world, flows=frozenset(replace(flow, out=31, into=31) for flow in world.flows))


def without_bridge_netfilter(world: World) -> World:
    """The same world, whose bridge hands packets over past netfilter."""
    pods = tuple(replace(pod, bridge_netfilter=False) for pod in world.pods)
    return replace(world, pods=pods)


def at_pod(frame: Frame) -> Frame:
    """What POD gets of an untranslated frame of a peer's."""
    return replace(frame, source_mac=BRIDGE_MAC, dest_mac=POD.mac, ttl=frame.ttl - 1)


def unshown(row: Case) -> Case:
    """The same packet where no device takes a copy: the kernel path has it as it came."""
    place = "bridge" if row.program is Program.FROM_POD else "VXLAN device"
    return replace(
        row,
        verdict=Verdict.TCP_CONTROL,
        fact=f"{row.fact}, and no {place}",
        world=without_devices(row.world),
        output=None,
    )


def both_ways(fact: str, out: Frame, into: Frame, world: World, **more: Any) -> list[Case]:
    """Four rows: to PEER and from it, with devices for a copy and without."""
    rows = [
        from_pod.case(
            Verdict.ENCAPSULATED, fact, out, world=world, output=from_pod.wire(out), **more
        ),
        from_nic.case(
            Verdict.DECAPSULATED,
            fact,
            from_nic.carried(into),
            world=world,
            output=at_pod(into),
            **more,
        ),
    ]
    return [*rows, *map(unshown, rows)]


def first_fin() -> list[Case]:
    """Rows of the first FIN, each with the end that has sent it."""
    by_pod, by_peer = (closing(RESET, {TCP_FLOW: end}).flows for end in (END_POD, END_REMOTE))
    rows = both_ways("FIN: record and reset stay", FIN_OUT, FIN_IN, RESET)
    return [
        replace(row, flows=by_pod if row.program is Program.FROM_POD else by_peer) for row in rows
    ]


def refused(fact: str, verdict: Verdict, **approval: Any) -> list[Case]:
    """Two rows: a FIN that its record lets out no more, nor in; `approval` is the record's."""
    flow = Approval(tuple=TCP_FLOW, **approval)
    by_pod, by_peer = (replace(flow, closing=end) for end in (END_POD, END_REMOTE))
    return [
        from_pod.case(verdict, fact, FIN_OUT, world=only(flow), flows=frozenset([by_pod])),
        from_nic.case(
            verdict,
            fact,
            from_nic.carried(FIN_IN),
            world=only(flow),
            flows=frozenset([by_peer]),
        ),
    ]


def last_ack() -> list[Case]:
    """Rows of the ACK behind both FINs, out and in. Its sender's has been acknowledged."""
    flow = Approval(tuple=TCP_FLOW)
    by_pod, by_peer = (
        only(replace(flow, closing=BOTH | heard)) for heard in (HEARD_POD, HEARD_REMOTE)
    )
    rows = [
        replace(row, world=by_pod if row.program is Program.FROM_POD else by_peer)
        for row in both_ways("the last ACK", LAST_OUT, LAST_IN, by_pod, flows=frozenset())[:2]
    ]
    left = [
        replace(
            row, verdict=verdict, fact=f"{row.fact}, {why}", world=change(row.world), output=None
        )
        for row in rows
        for verdict, why, change in (
            (Verdict.TCP_CONTROL, "and somebody listens to conntrack", with_listener),
            (Verdict.FLOW_AGED, "whose record is too old", aged),
        )
    ]
    return [*rows, *map(unshown, rows), *left]


def first_ack() -> list[Case]:
    """Rows of an ACK of the other end's FIN, whose sender's own nobody has acknowledged."""
    world = closing(APPROVED, {TCP_FLOW: BOTH})
    by_pod, by_peer = (
        closing(APPROVED, {TCP_FLOW: BOTH | heard}).flows for heard in (HEARD_REMOTE, HEARD_POD)
    )
    rows = both_ways("the first ACK, where both have closed at once", LAST_OUT, LAST_IN, world)
    return [
        replace(row, flows=by_pod if row.program is Program.FROM_POD else by_peer) for row in rows
    ]


TUNNELLED = [
    *first_fin(),
    *(
        row
        for who, ends in (("the pod's", END_POD), ("the peer's", END_REMOTE), ("either", BOTH))
        for row in both_ways(
            f"data behind {who} FIN",
            sent(ACK_DATA),
            from_nic.inner(from_nic.RESPONSE),
            closing(APPROVED, {TCP_FLOW: ends}),
        )
    ),
    *first_ack(),
    *last_ack(),
    *refused("FIN of a flow that was approved too long ago", Verdict.FLOW_AGED, out=31, into=31),
    *refused("FIN of a flow that was approved the other way only", Verdict.FLOW_HALF, out=None),
    *refused("FIN of a flow that was approved one way only", Verdict.FLOW_HALF, into=None),
    *refused("FIN of a flow of an earlier epoch", Verdict.FLOW_WITHDRAWN, epoch=6),
    from_nic.case(
        Verdict.DECAPSULATED,
        "FIN that was marked for congestion on its way",
        from_nic.carried(replace(FIN_IN, tos=ECT0), tos=CE),
        output=replace(at_pod(FIN_IN), tos=CE),
        flows=closing(APPROVED, {TCP_FLOW: END_REMOTE}).flows,
    ),
    from_nic.case(
        Verdict.DECAPSULATED,
        "FIN, and the VXLAN device is gone: the pod has it all the same",
        from_nic.carried(FIN_IN),
        world=GONE,
        output=at_pod(FIN_IN),
        flows=closing(APPROVED, {TCP_FLOW: END_REMOTE}).flows,
    ),
    from_pod.case(
        Verdict.TCP_CONTROL,
        "FIN without ACK",
        sent(replace(ACK_DATA, flags=FIN)),
        flows=closing(APPROVED, {TCP_FLOW: END_POD}).flows,
    ),
    from_pod.case(
        Verdict.TCP_CONTROL,
        "SYN opens what was closing",
        sent(replace(ACK_DATA, flags=SYN)),
        world=closing(APPROVED, {TCP_FLOW: BOTH}),
        flows=without(APPROVED, TCP_FLOW),
    ),
]

TO_LINK = [
    from_pod.case(
        Verdict.ROUTED,
        "FIN to a peer on our link",
        FIN_OUT,
        world=DIRECT,
        output=replace(FIN_OUT, ttl=FIN_OUT.ttl - 1),
        flows=closing(DIRECT, {TCP_FLOW: END_POD}).flows,
    ),
    from_nic.case(
        Verdict.TCP_CONTROL,
        "FIN, untunnelled",
        plain(replace(from_nic.RESPONSE, flags=FIN | ACK)),
        world=DIRECT,
        flows=closing(DIRECT, {TCP_FLOW: END_REMOTE}).flows,
    ),
    from_nic.case(
        Verdict.TCP_CONTROL,
        "data behind a FIN, untunnelled",
        plain(from_nic.RESPONSE),
        world=closing(DIRECT, {TCP_FLOW: END_POD}),
    ),
]

FIN_NEXT_DOOR = handed_over(replace(from_pod.LOCAL_DATA, flags=FIN | ACK))
NEXT_DOOR = from_pod.case(
    Verdict.SWITCHED,
    "FIN to a neighbour closes its end of the record",
    FIN_NEXT_DOOR,
    world=APPROVED,
    flows=closing(APPROVED, {LOCAL_TCP: END_POD}).flows,
)
FIN_BACK = from_pod.case(
    Verdict.SWITCHED,
    "FIN of a neighbour closes the other end",
    handed_back(replace(from_pod.LOCAL_REPLY, flags=FIN | ACK)),
    ifindex=NEIGHBOUR.ifindex,
    world=APPROVED,
    flows=closing(APPROVED, {LOCAL_TCP: END_REMOTE}).flows,
)
TO_NEIGHBOUR = [
    NEXT_DOOR,
    unshown(NEXT_DOOR),
    FIN_BACK,
    unshown(FIN_BACK),
    replace(
        NEXT_DOOR,
        fact=f"{NEXT_DOOR.fact}, where netfilter does not see the bridge",
        world=without_bridge_netfilter(APPROVED),
    ),
]


def translated(fact: str, flow: Approval, world: World) -> list[Case]:
    """Four rows: a translated flow's FIN, out and in, with devices for a copy and without."""
    rows = [
        make(
            fact,
            flow,
            sends(flow, flags=FIN | ACK),
            world=world,
            flows=closing(world, {flow.tuple: end}).flows,
        )
        for make, sends, end in (
            (nat.out, nat.pod_sends, END_POD),
            (nat.into, nat.peer_sends, END_REMOTE),
        )
    ]
    return [*rows, *map(unshown, rows)]


LOCAL_SERVICE_FIN = nat.switched(
    "FIN to a Service's pod of this node closes the pod's end",
    nat.LOCAL_SERVICE,
    nat.pod_sends(nat.LOCAL_SERVICE, flags=FIN | ACK),
    world=nat.LOCAL,
    flows=closing(nat.LOCAL, {nat.LOCAL_SERVICE.tuple: END_POD}).flows,
)
ALL = only(nat.SERVICE_TCP, nat.SERVICE_UDP, nat.MASQUERADED_TCP, nat.NODE_PORT, FIRST, SECOND)
TRANSLATED = [
    *translated("FIN of a masqueraded flow", nat.MASQUERADED_TCP, ALL),
    *translated("FIN of a node port's flow", nat.NODE_PORT, ALL),
    *translated("FIN closes a Service's flow, not a direct one", FIRST, ALL),
    from_nic.case(
        Verdict.FLOW_UNKNOWN,
        "FIN of no flow leaves one that has its 5-tuple before netfilter",
        from_nic.carried(nat.peer_sends(DIRECT_FLOW, flags=FIN | ACK)),
        world=only(SECOND),
    ),
    LOCAL_SERVICE_FIN,
    replace(
        LOCAL_SERVICE_FIN,
        fact=f"{LOCAL_SERVICE_FIN.fact}, where netfilter does not see the bridge",
        world=without_bridge_netfilter(nat.LOCAL),
    ),
    nat.answered(
        "FIN of a Service's pod of this node closes the other end",
        nat.LOCAL_SERVICE,
        changes={"flags": FIN | ACK},
        flows=closing(nat.LOCAL, {nat.LOCAL_SERVICE.tuple: END_REMOTE}).flows,
    ),
]

CASES = [*TUNNELLED, *TO_LINK, *TO_NEIGHBOUR, *TRANSLATED]
