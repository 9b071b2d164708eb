# SPDX-License-Identifier: Apache-2.0
"""What a pod's veth teaches of a translated flow between two pods of this node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import ACK, FIN, RST, SYN
from world import (
    BRIDGE_MAC,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    POD,
    ROUTER_MAC,
    VETH,
    Approval,
    Tuple,
)

from tables.arriving import to_pod
from tables.case import Case, only
from tables.leaving import record
from tables.nat import HAIRPIN, LOCAL, LOCAL_BACK, LOCAL_SERVICE, LOCAL_UDP, as_sent, pod_sends
from tables.nat_learned import went_in
from vxlane.datapath.abi import Verdict

NOW = 0


def mirror(flow: Approval) -> Approval:
    """The receiver's record of a flow between pods of this node."""
    behind, own = flow.behind or flow.tuple, flow.tuple
    return Approval(
        tuple=Tuple(
            behind.remote, behind.local, behind.remote_port, behind.local_port, own.protocol
        ),
        behind=Tuple(own.remote, own.local, own.remote_port, own.local_port, own.protocol),
        ifindex=NEIGHBOUR_VETH if behind.remote == NEIGHBOUR.address else VETH,
        by_gateway=flow.by_gateway,
    )


def crosses(verdict: Verdict, fact: str, flow: Approval, **more: Any) -> Case:
    """A row of the receiver's veth; `sent`: changes of the note, `seen`: of what comes out."""
    target = BRIDGE_MAC if flow.by_gateway else POD.mac
    before = pod_sends(flow, dest_mac=target, **more.pop("transport", {}))
    behind = flow.behind or flow.tuple
    receiver = NEIGHBOUR if behind.remote == NEIGHBOUR.address else POD
    macs = {"source_mac": BRIDGE_MAC, "dest_mac": receiver.mac}
    after = as_sent(before, flow, **{"ttl": 64 - flow.hops, **macs, **more.pop("seen", {})})
    note = went_in(before, **more.pop("sent", {}))
    return to_pod(verdict, fact, after, **{"note": note, "ifindex": receiver.ifindex, **more})


def first(flow: Approval) -> frozenset[Approval]:
    """Both records once the first packet has crossed."""
    return frozenset(
        [
            replace(flow, out=NOW, into=None, is_confirmed=False),
            replace(mirror(flow), out=None, into=NOW, is_confirmed=False, by_gateway=True),
        ]
    )


def again(flow: Approval) -> frozenset[Approval]:
    """Both records once the second packet has crossed."""
    receiver = replace(mirror(flow), by_gateway=True)
    return frozenset([replace(flow, out=NOW, into=None), replace(receiver, out=None, into=NOW)])


def older(flow: Approval, age: int) -> set[Approval]:
    """The same two, that long ago and each seen once."""
    return {
        replace(one, out=age if one.out == NOW else None, into=age if one.into == NOW else None)
        for one in first(flow)
    }


FLOWS = {
    "TCP of a Service": LOCAL_SERVICE,
    "masqueraded UDP of a Service": LOCAL_UDP,
    "TCP of a Service that is routed": replace(LOCAL_SERVICE, hops=1),
    "the answer of a Service's pod": LOCAL_BACK,
}
LEARNED = [
    row
    for fact, flow in FLOWS.items()
    for row in (
        crosses(Verdict.LEARNED, f"{fact} between pods of this node", flow, flows=first(flow)),
        crosses(
            Verdict.LEARNED,
            f"{fact} between pods of this node, a second time",
            flow,
            world=only(*older(flow, 5)),
            flows=again(flow),
        ),
        crosses(
            Verdict.TRANSLATED,
            f"{fact} between pods of this node, which its entrance did not know",
            flow,
            sent={"outside": True},
            flows=first(flow),
        ),
    )
]

BOTH = [
    crosses(
        Verdict.LEARNED,
        "the answer of a Service's pod completes both records",
        LOCAL_BACK,
        world=only(*older(LOCAL_SERVICE, 4)),
        flows=frozenset(
            [replace(LOCAL_SERVICE, out=4, into=NOW), replace(LOCAL_BACK, out=NOW, into=4)]
        ),
    ),
    crosses(
        Verdict.LEARNED,
        "a packet that is routed, and was bridged",
        replace(LOCAL_SERVICE, hops=1),
        world=LOCAL,
        flows=frozenset(
            [replace(LOCAL_SERVICE, hops=1, out=NOW, into=1), replace(LOCAL_BACK, out=1, into=NOW)]
        ),
    ),
    crosses(
        Verdict.LEARNED,
        "another pod behind the Service",
        LOCAL_SERVICE,
        world=only(
            replace(
                LOCAL_SERVICE,
                behind=replace(mirror(LOCAL_SERVICE).tuple, local=POD.address, remote=POD.address),
            )
        ),
        flows=first(LOCAL_SERVICE),
    ),
    crosses(
        Verdict.TCP_CONTROL,
        "RST of a translated flow between pods of this node ends both records",
        LOCAL_SERVICE,
        transport={"flags": RST},
        world=LOCAL,
        flows=frozenset(),
        resets=frozenset([LOCAL_SERVICE.tuple, LOCAL_BACK.tuple]),
    ),
    crosses(
        Verdict.TCP_CONTROL,
        "SYN of a translated flow between pods of this node begins anew",
        LOCAL_SERVICE,
        transport={"flags": SYN},
        world=LOCAL,
        flows=record(replace(LOCAL_SERVICE, out=NOW, into=None, is_confirmed=False, is_open=False)),
    ),
    crosses(
        Verdict.TCP_CONTROL,
        "FIN of a translated flow between pods of this node teaches nothing",
        LOCAL_SERVICE,
        transport={"flags": FIN | ACK},
        world=only(),
    ),
]

REFUSED = [
    crosses(Verdict.CHANGED, "to itself by a Service", HAIRPIN),
    crosses(
        Verdict.TRANSLATED,
        "to itself by a Service that its entrance did not know",
        HAIRPIN,
        sent={"outside": True},
    ),
    crosses(
        Verdict.CHANGED,
        "translated, two hops between pods of this node",
        LOCAL_SERVICE,
        seen={"ttl": 62},
    ),
    crosses(
        Verdict.CHANGED,
        "translated, with a TTL that grew between pods of this node",
        LOCAL_SERVICE,
        seen={"ttl": 65},
    ),
    crosses(
        Verdict.CHANGED,
        "translated, for another MAC than the pod's",
        LOCAL_SERVICE,
        seen={"dest_mac": ROUTER_MAC},
    ),
    crosses(
        Verdict.CHANGED,
        "translated between pods of this node, and another sequence number",
        LOCAL_SERVICE,
        sent={"content": 1},
    ),
    crosses(
        Verdict.CHANGED,
        "translated between pods of this node, and another identification",
        LOCAL_UDP,
        sent={"content": 1},
    ),
]

CASES = [*LEARNED, *BOTH, *REFUSED]
