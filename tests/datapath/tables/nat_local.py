# SPDX-License-Identifier: Apache-2.0
"""What a pod's veth teaches of a translated flow between two pods of this node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import ACK, FIN, RST, SYN
from world import (
    BRIDGE_MAC,
    END_POD,
    NEIGHBOUR,
    POD,
    ROUTER_MAC,
    THERE,
    UNSEEN,
    Approval,
    Crossing,
)

from tables.arriving import to_pod
from tables.case import Case, only
from tables.leaving import record
from tables.nat import (
    HAIRPIN,
    LOCAL,
    LOCAL_BACK,
    LOCAL_SERVICE,
    LOCAL_UDP,
    ROUTED,
    as_sent,
    pod_sends,
)
from tables.nat_learned import went_in
from vxlane.datapath.abi import Verdict

NOW = 0


def crosses(verdict: Verdict, fact: str, flow: Approval, **more: Any) -> Case:
    """A row of the receiver's veth; `sent`: changes of the note, `seen`: of what comes out."""
    target = BRIDGE_MAC if flow.there.by_gateway else POD.mac
    before = pod_sends(flow, dest_mac=target, **more.pop("transport", {}))
    behind = flow.behind or flow.tuple
    receiver = NEIGHBOUR if behind.remote == NEIGHBOUR.address else POD
    macs = {"source_mac": flow.there.source_mac, "dest_mac": receiver.mac}
    after = as_sent(
        before, flow, **{"ttl": 64 - flow.there.is_routed, **macs, **more.pop("seen", {})}
    )
    note = went_in(before, **more.pop("sent", {}))
    return to_pod(verdict, fact, after, **{"note": note, "ifindex": receiver.ifindex, **more})


def first(flow: Approval) -> Approval:
    """The record once the first packet has crossed."""
    return replace(flow, out=NOW, into=None, is_confirmed=False, back=UNSEEN)


FLOWS = {
    "TCP of a Service": LOCAL_SERVICE,
    "masqueraded UDP of a Service": LOCAL_UDP,
    "TCP of a Service that is routed": ROUTED,
    "the answer of a Service's pod": LOCAL_BACK,
}
LEARNED = [
    row
    for fact, flow in FLOWS.items()
    for row in (
        crosses(
            Verdict.LEARNED, f"{fact} between pods of this node", flow, flows=record(first(flow))
        ),
        crosses(
            Verdict.LEARNED,
            f"{fact} between pods of this node, a second time",
            flow,
            world=only(replace(first(flow), out=5)),
            flows=record(replace(first(flow), is_confirmed=True)),
        ),
        crosses(
            Verdict.TRANSLATED,
            f"{fact} between pods of this node, which its entrance did not know",
            flow,
            sent={"outside": True},
            flows=record(first(flow)),
        ),
    )
]

BOTH = [
    *(
        crosses(
            Verdict.LEARNED,
            f"the answer to {fact} completes the record",
            flow.mirrored,
            world=only(replace(first(flow), out=4)),
            flows=record(replace(flow, out=4, into=NOW)),
        )
        for fact, flow in FLOWS.items()
    ),
    *(
        crosses(
            Verdict.LEARNED,
            f"a packet that {fact}, and the answer's way stays",
            replace(LOCAL_SERVICE, there=there),
            world=LOCAL,
            flows=record(replace(LOCAL_SERVICE, there=there, out=NOW)),
        )
        for fact, there in (
            ("is routed, and was bridged", ROUTED.there),
            ("comes out as another's frame", replace(THERE, source_mac=ROUTER_MAC)),
            ("is not for the gateway any more", Crossing()),
        )
    ),
    *(
        crosses(
            Verdict.LEARNED,
            f"an answer that {fact}, and what it answers goes its way",
            replace(LOCAL_SERVICE, back=back).mirrored,
            world=LOCAL,
            flows=record(replace(LOCAL_SERVICE, back=back, into=NOW)),
        )
        for fact, back in (
            ("is routed, and was bridged", Crossing(is_routed=True)),
            ("comes out as another's frame", Crossing(source_mac=ROUTER_MAC)),
            ("is for the gateway now", Crossing(by_gateway=True)),
        )
    ),
    crosses(
        Verdict.LEARNED,
        "another pod behind the Service",
        LOCAL_SERVICE,
        world=only(
            replace(
                LOCAL_SERVICE,
                behind=replace(LOCAL_BACK.tuple, local=POD.address, remote=POD.address),
            )
        ),
        flows=record(first(LOCAL_SERVICE)),
    ),
    *(
        crosses(
            Verdict.TCP_CONTROL,
            f"RST of {sender} ends the record",
            sent,
            transport={"flags": RST},
            world=LOCAL,
            flows=frozenset(),
            resets=frozenset([LOCAL_SERVICE.tuple]),
        )
        for sender, sent in (
            ("who asks a Service of this node", LOCAL_SERVICE),
            ("a Service's pod of this node", LOCAL_BACK),
        )
    ),
    crosses(
        Verdict.TCP_CONTROL,
        "SYN of a translated flow between pods of this node begins anew",
        LOCAL_SERVICE,
        transport={"flags": SYN},
        world=LOCAL,
        flows=record(replace(first(LOCAL_SERVICE), is_open=False, opener=END_POD)),
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
