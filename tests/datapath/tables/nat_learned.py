# SPDX-License-Identifier: Apache-2.0
"""What the exits learn of a packet that went in as one flow and comes out as another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frames import ACK, CE, ECHO_REPLY, ECT0, FIN, RST, SYN, TCP, Frame, Icmp
from world import (
    BRIDGE_MAC,
    END_POD,
    END_REMOTE,
    EPOCH,
    NIC_MAC,
    OTHER_PEER,
    OTHER_REMOTE,
    OVERLAY_MAC,
    PEER,
    POD,
    ROUTER_MAC,
    STRANGER,
    TCP_FLOW,
    VETH,
    Approval,
    Note,
)

from tables.arriving import to_pod
from tables.case import Case, noted, only, sent
from tables.from_nic import inner
from tables.leaving import to_nic
from tables.nat import (
    BRIDGE_ADDRESS,
    MASQUERADED_TCP,
    MASQUERADED_UDP,
    NODE_PORT,
    PORT_MOVED,
    SERVICE,
    SERVICE_TCP,
    SERVICE_UDP,
    as_got,
    as_sent,
    peer_sends,
    pod_sends,
)
from tables.nat_refused import FIRST, SECOND
from vxlane.datapath.abi import Verdict, Way

NOW = 0
FLOWS = {
    "TCP of a Service": SERVICE_TCP,
    "UDP of a Service": SERVICE_UDP,
    "masqueraded TCP": MASQUERADED_TCP,
    "masqueraded UDP": MASQUERADED_UDP,
    "TCP whose source port was moved": PORT_MOVED,
    "TCP of a node port": NODE_PORT,
}


def went_in(frame: Frame, **changes: Any) -> Note:
    """The note of a frame that is at an entrance."""
    made = noted(frame, 0)
    assert made
    by_gateway = frame.dest_mac == BRIDGE_MAC
    return replace(made, **{"by_gateway": by_gateway, **changes})


def leaves(verdict: Verdict, fact: str, flow: Approval, **more: Any) -> Case:
    """A row of the NIC: what the flow's pod sends; `sent`, `seen`: changes of note and frame."""
    before = pod_sends(flow, **more.pop("transport", {}))
    note = went_in(before)
    note = replace(note, **more.pop("sent", lambda _: {})(note))
    macs = {"source_mac": OVERLAY_MAC, "dest_mac": PEER.vtep_mac}
    after = as_sent(before, flow, **{"ttl": 63, **macs, **more.pop("seen", {})})
    more = {"note": note, "world": only(), **more}
    return to_nic(verdict, f"{fact}, out", after, **more)


def comes(verdict: Verdict, fact: str, flow: Approval, **more: Any) -> Case:
    """A row of POD's veth: what the flow's remote end sends."""
    before = peer_sends(flow, **more.pop("transport", {}))
    note = went_in(before)
    note = replace(note, **more.pop("sent", lambda _: {})(note))
    macs = {"source_mac": BRIDGE_MAC, "dest_mac": POD.mac}
    after = as_got(before, flow, **{"ttl": 62, **macs, **more.pop("seen", {})})
    more = {"note": note, **more}
    return to_pod(verdict, f"{fact}, in", after, **more)


def learned(flow: Approval, *, out: int | None = None, into: int | None = None) -> Any:
    """The records once a first packet has taught."""
    return frozenset([replace(flow, out=out, into=into, is_confirmed=False)])


def taught(fact: str, flow: Approval) -> list[Case]:
    """Rows of the first packet of a flow, the next one, and the first one the other way."""
    once = replace(flow, is_confirmed=False)
    return [
        leaves(Verdict.LEARNED, fact, flow, flows=learned(flow, out=NOW)),
        comes(Verdict.CHANGED, f"{fact} that the pod has not sent", flow, world=only()),
        leaves(
            Verdict.LEARNED,
            f"{fact} a second time",
            flow,
            world=only(replace(once, out=5, into=None)),
            flows=frozenset([replace(flow, out=NOW, into=None)]),
        ),
        leaves(
            Verdict.LEARNED,
            f"{fact} that has come in",
            flow,
            world=only(replace(once, out=None, into=5)),
            flows=frozenset([replace(flow, out=NOW, into=5)]),
        ),
        comes(
            Verdict.LEARNED,
            f"{fact} that has gone out",
            flow,
            world=only(replace(once, out=5, into=None)),
            flows=frozenset([replace(flow, out=5, into=NOW)]),
        ),
    ]


SEEN = SERVICE_TCP.behind or SERVICE_TCP.tuple
ELSEWHERE = replace(SERVICE_TCP, behind=replace(SEEN, remote=OTHER_REMOTE))
PLAIN = replace(SERVICE_TCP, behind=None)
ON_LINK = replace(SERVICE_TCP, behind=replace(SEEN, remote=OTHER_REMOTE))
# A flow of a pod's to a pod, with and without a translation.
DIRECT_FLOW = Approval(tuple=TCP_FLOW)
REPLACED = [
    row
    for fact, before in (
        ("another backend", ELSEWHERE),
        ("another port of the backend", replace(ELSEWHERE, behind=replace(SEEN, remote_port=80))),
        ("another source", replace(ELSEWHERE, behind=replace(SEEN, local=BRIDGE_ADDRESS))),
        ("another source port", replace(ELSEWHERE, behind=replace(SEEN, local_port=1))),
        ("no translation", PLAIN),
        ("an earlier epoch", replace(SERVICE_TCP, epoch=EPOCH - 1)),
        ("an earlier pod", replace(SERVICE_TCP, ifindex=VETH + 100)),
    )
    for row in (
        leaves(
            Verdict.LEARNED,
            f"instead of {fact}",
            SERVICE_TCP,
            world=only(before),
            flows=learned(SERVICE_TCP, out=NOW),
        ),
        comes(Verdict.CHANGED, f"instead of {fact}", SERVICE_TCP, world=only(before)),
    )
]

CHANGED = [
    row
    for fact, flow, changes in (
        ("a sequence number", SERVICE_TCP, lambda note: {"content": note.content + 1}),
        ("an identification", SERVICE_UDP, lambda note: {"content": note.content ^ 1}),
        ("a length", SERVICE_UDP, lambda note: {"content": note.content ^ 1 << 24}),
        ("a protocol", SERVICE_UDP, lambda _: {"protocol": TCP}),
        ("two hops", SERVICE_TCP, lambda note: {"ttl": note.ttl + 1}),
        ("no hop", SERVICE_TCP, lambda note: {"ttl": note.ttl - 1}),
        ("a DSCP", SERVICE_TCP, lambda _: {"tos": 0x28}),
        ("a checksum that was finished", SERVICE_TCP, lambda _: {"unfinished": True}),
    )
    for row in (
        leaves(Verdict.CHANGED, f"translated, and {fact} more", flow, sent=changes),
        comes(Verdict.CHANGED, f"translated, and {fact} more", flow, sent=changes),
    )
]

SENT_FIRST = replace(FIRST, out=5, into=None, is_confirmed=False)
PING, PONG = sent(Icmp(identifier=77)), inner(Icmp(kind=ECHO_REPLY, identifier=77))
OUTSIDE = {"sent": lambda _: {"outside": True}}
FINISHED = {"sent": lambda _: {"outside": True, "unfinished": True}}
OTHERS = [
    to_nic(
        Verdict.CHANGED,
        "an echo request that is translated",
        replace(PING, source_mac=OVERLAY_MAC, dest_mac=PEER.vtep_mac, ttl=63),
        note=went_in(replace(PING, destination=SERVICE)),
    ),
    to_pod(
        Verdict.CHANGED,
        "an echo reply that is translated",
        replace(PONG, source=SERVICE, source_mac=BRIDGE_MAC, dest_mac=POD.mac, ttl=62),
        note=went_in(PONG),
    ),
    leaves(
        Verdict.TRANSLATED,
        "for an address that its entrance knew no pod of",
        SERVICE_TCP,
        flows=learned(SERVICE_TCP, out=NOW),
        **OUTSIDE,
    ),
    leaves(
        Verdict.TRANSLATED,
        "for an address that its entrance knew no pod of, and changed",
        SERVICE_TCP,
        **FINISHED,
    ),
    leaves(
        Verdict.STALE_EPOCH,
        "translated before a withdrawal",
        SERVICE_TCP,
        sent=lambda _: {"outside": True, "epoch": EPOCH - 1},
    ),
    leaves(Verdict.MARKED, "translated, with a mark of someone else", SERVICE_TCP, mark=1),
    leaves(
        Verdict.NO_PEER,
        "to a Service outside",
        SERVICE_TCP,
        seen={"destination": STRANGER},
        **OUTSIDE,
    ),
    leaves(
        Verdict.NO_POD, "translated, of no pod", SERVICE_TCP, sent=lambda _: {"source": STRANGER}
    ),
    leaves(
        Verdict.LEARNED,
        "congestion that was marked in a translated packet",
        SERVICE_TCP,
        sent=lambda _: {"tos": ECT0},
        seen={"tos": CE},
        flows=learned(SERVICE_TCP, out=NOW),
    ),
    to_nic(
        Verdict.LEARNED,
        "translated, to a peer on our link",
        pod_sends(ON_LINK),
        frame=as_sent(pod_sends(ON_LINK), ON_LINK, source_mac=NIC_MAC, dest_mac=ROUTER_MAC, ttl=63),
        note=went_in(pod_sends(ON_LINK)),
        world=replace(only(), peers=(PEER, replace(OTHER_PEER, way=Way.DIRECT))),
        flows=learned(ON_LINK, out=NOW),
    ),
    leaves(
        Verdict.LEARNED,
        "a flow that is translated no more",
        DIRECT_FLOW,
        world=only(SECOND),
        flows=frozenset([replace(DIRECT_FLOW, out=NOW, into=None)]),
    ),
    leaves(
        Verdict.LEARNED,
        "a direct flow that a Service's flow makes move",
        SECOND,
        world=only(FIRST),
        flows=frozenset([FIRST]) | learned(SECOND, out=NOW),
    ),
    comes(
        Verdict.LEARNED,
        "a Service's flow that has the 5-tuple of a direct one, which is over",
        FIRST,
        world=only(DIRECT_FLOW, SENT_FIRST),
        flows=frozenset([replace(FIRST, out=5, into=NOW)]),
    ),
    comes(
        Verdict.LEARNED,
        "a Service's flow that has the 5-tuple of a direct one, which was moved",
        FIRST,
        world=only(SECOND, SENT_FIRST),
        flows=frozenset([SECOND, replace(FIRST, out=5, into=NOW)]),
    ),
]

SHUT = replace(SERVICE_TCP, is_open=False, is_confirmed=False)
CONTROL = [
    row
    for fact, flags, before, out, into in (
        (
            "SYN begins a translated flow",
            SYN,
            only(SERVICE_TCP),
            [replace(SHUT, out=NOW, into=None, opener=END_POD)],
            [replace(SHUT, out=None, into=NOW, opener=END_REMOTE)],
        ),
        ("RST ends a translated flow", RST, only(SERVICE_TCP), [], []),
        (
            "FIN teaches nothing of a translation",
            FIN | ACK,
            only(SERVICE_TCP),
            [SERVICE_TCP],
            [SERVICE_TCP],
        ),
    )
    for row in (
        leaves(
            Verdict.TCP_CONTROL,
            fact,
            SERVICE_TCP,
            transport={"flags": flags},
            world=before,
            flows=frozenset(out),
            resets=frozenset([SERVICE_TCP.tuple] if flags == RST else []),
        ),
        comes(
            Verdict.TCP_CONTROL,
            fact,
            SERVICE_TCP,
            transport={"flags": flags},
            world=before,
            flows=frozenset(into),
            resets=frozenset([SERVICE_TCP.tuple] if flags == RST else []),
        ),
    )
]

CASES = [
    *(row for fact, flow in FLOWS.items() for row in taught(fact, flow)),
    *REPLACED,
    *CHANGED,
    *OTHERS,
    *CONTROL,
]
