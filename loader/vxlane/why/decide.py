# SPDX-License-Identifier: Apache-2.0
"""What a flow's next packet meets at its entrance, and what keeps the flow from being bypassed.

The steps are those of bpf/from_pod.c, bpf/from_nic.c and bpf/flow.h, in their order. What only the
packet itself can tell (options, fragments, TTL, marks, its hash) is taken to be as usual. Pure.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from vxlane.datapath import admission
from vxlane.datapath.abi import Guard, Verdict, VerdictKind, Way
from vxlane.datapath.records import Flow, Pod, Settings
from vxlane.why.facts import Facts, Packet

PASSING = frozenset(
    {
        *(Verdict.TCP_CONTROL, Verdict.FLOW_UNKNOWN, Verdict.FLOW_HALF, Verdict.FLOW_AGED),
        *(Verdict.FLOW_WITHDRAWN, Verdict.NO_PEER),
    }
)
"""What the kernel path takes in passing, and may approve. Then something else may be what lasts."""


def leaving(facts: Facts) -> Verdict:
    """What from_pod says of the next packet that the pod sends."""
    return next(_leaving(facts))


def arriving(facts: Facts) -> Verdict:
    """What from_nic says of the next packet that a peer sends for the pod."""
    return next(_arriving(facts))


def obstacle(facts: Facts, verdict: Verdict, *, is_leaving: bool) -> Verdict:
    """What keeps the flow from being bypassed, where its next packet meets `verdict`.

    That is another verdict if the kernel path takes this packet in passing, and something lasting
    keeps the flow there.
    """
    if verdict not in PASSING:
        return verdict
    return next(_lasting(facts, is_leaving=is_leaving), verdict)


def largest(facts: Facts, *, is_leaving: bool) -> int | None:
    """The length of the largest IP packet that may be bypassed, bytes; larger meet TOO_BIG."""
    record = facts.record
    if not is_leaving:
        return facts.pod.mtu if facts.pod else None
    if record and record.way != Way.LOCAL:
        return record.mtu or None
    if facts.receiver:
        return facts.receiver.mtu
    return facts.far_peer.mtu if facts.far_peer else None


def _leaving(facts: Facts) -> Iterator[Verdict]:
    pod, settings = facts.pod, facts.settings
    if facts.now >= settings.lease_until:
        yield Verdict.NO_AGENT
    if pod is None or not facts.has_veth:
        yield Verdict.NO_POD
        return
    if facts.mac and facts.mac != pod.mac:
        yield Verdict.SPOOFED_MAC
    if facts.packet is Packet.OTHER:
        yield Verdict.PROTOCOL
    if _is_judged(settings, pod):
        yield Verdict.JUDGED
    if _is_guarded(pod, facts, Guard.FROM_POD):
        yield Verdict.GUARDED
    if facts.packet is Packet.SYN:
        yield Verdict.TCP_CONTROL
    if facts.record is None:
        yield _without_record(facts, pod)
    else:
        yield from _not_admitted(facts, pod, facts.record, is_leaving=True)
        yield from _by_record(facts, pod, facts.record)


def _without_record(facts: Facts, pod: Pod) -> Verdict:
    is_beside = facts.neighbour is not None and facts.neighbour.bridge == pod.bridge
    verdict: Verdict = Verdict.FLOW_UNKNOWN if facts.peer or is_beside else Verdict.NO_PEER
    return verdict


def _by_record(facts: Facts, pod: Pod, flow: Flow) -> Iterator[Verdict]:
    if flow.way == Way.LOCAL:
        receiver = facts.receiver
        if receiver is None or receiver.bridge != pod.bridge:
            yield Verdict.NO_POD
        elif receiver.ifindex != flow.nic:
            yield Verdict.FLOW_WITHDRAWN
        elif _is_judged(facts.settings, receiver):
            yield Verdict.JUDGED
        elif _is_guarded(receiver, facts, Guard.TO_POD):
            yield Verdict.GUARDED
    yield _bypassed(flow, {Way.LOCAL: Verdict.SWITCHED, Way.TUNNEL: Verdict.ENCAPSULATED})


def _arriving(facts: Facts) -> Iterator[Verdict]:
    pod, settings = facts.pod, facts.settings
    is_tunnelled = facts.far_peer is None or facts.far_peer.way == Way.TUNNEL
    if facts.now >= settings.lease_until:
        yield Verdict.NO_AGENT if is_tunnelled else Verdict.NOT_OVERLAY
    if facts.far_peer is None:
        yield Verdict.NO_PEER
    if facts.packet is Packet.OTHER:
        yield Verdict.PROTOCOL
    # Before its record is found, nothing says that the node's address is a pod's by NAT.
    is_unknown = facts.entering is None and facts.behind.local != facts.tuple.local
    if pod is None or is_unknown:
        yield Verdict.NO_POD if is_tunnelled else Verdict.NOT_OVERLAY
        return
    if _is_judged(settings, pod):
        yield Verdict.JUDGED
    if _is_guarded(pod, facts, Guard.TO_POD):
        yield Verdict.GUARDED
    if facts.packet is Packet.SYN:
        yield Verdict.TCP_CONTROL
    if facts.entering is None:
        yield Verdict.FLOW_UNKNOWN
        return
    yield from _not_admitted(facts, pod, facts.entering, is_leaving=False)
    if not facts.has_veth:
        yield Verdict.NO_POD
    way = Way.TUNNEL if is_tunnelled else Way.DIRECT
    if facts.entering.is_closing and (way is Way.DIRECT or not settings.vtep):
        yield Verdict.TCP_CONTROL
    yield Verdict.NAT if _is_translated(facts.entering) else _ARRIVED[way]


_ARRIVED = {Way.TUNNEL: Verdict.DECAPSULATED, Way.DIRECT: Verdict.ROUTED}


def _not_admitted(facts: Facts, pod: Pod, flow: Flow, *, is_leaving: bool) -> Iterator[Verdict]:
    """flow_admit() of bpf/flow.h."""
    settings, is_tcp = facts.settings, flow.tuple.protocol == socket.IPPROTO_TCP
    if flow.epoch != settings.epoch or flow.ifindex != pod.ifindex:
        yield Verdict.FLOW_WITHDRAWN
    if _is_translated(flow) and settings.judged_nat:
        yield Verdict.JUDGED
    halves = needed(flow, is_leaving=is_leaving)
    if not all(halves):
        yield Verdict.FLOW_HALF
    if not (flow.is_open if is_tcp else flow.is_confirmed or not _is_translated(flow)):
        yield Verdict.FLOW_HALF
    if facts.now - min(halves) >= longest(settings, flow):
        yield Verdict.FLOW_AGED


def needed(flow: Flow, *, is_leaving: bool) -> tuple[int, ...]:
    """When the halves were seen that packets of a direction are bypassed by, ns; 0: never."""
    halves = (flow.seen_out, flow.seen_in) if is_leaving else (flow.seen_in, flow.seen_out)
    is_datagram = flow.tuple.protocol == socket.IPPROTO_UDP
    return halves[:1] if is_datagram and flow.behind.local == flow.tuple.local else halves


def longest(settings: Settings, flow: Flow) -> int:
    """For how long an approval of the flow holds, ns."""
    protocol, is_translated = flow.tuple.protocol, _is_translated(flow)
    return admission.longest(settings, protocol, is_translated=is_translated)


def _lasting(facts: Facts, *, is_leaving: bool) -> Iterator[Verdict]:
    """What keeps a flow on the kernel path whose packets it takes in passing."""
    is_echo = facts.packet is Packet.ECHO
    if facts.is_translated and facts.settings.judged_nat:
        yield Verdict.JUDGED
    peer = facts.far_peer
    if not peer and not facts.receiver:
        yield Verdict.NO_PEER
    if facts.is_translated and is_echo:
        yield Verdict.CHANGED
    if is_leaving and facts.receiver:
        if _is_judged(facts.settings, facts.receiver):
            yield Verdict.JUDGED
        if _is_guarded(facts.receiver, facts, Guard.TO_POD):
            yield Verdict.GUARDED
    if is_leaving and peer and (not peer.ifindex or facts.next_hop):
        yield Verdict.NO_NEXT_HOP


def _is_judged(settings: Settings, pod: Pod) -> bool:
    return settings.judged or Guard.JUDGED in pod.guard


def _is_guarded(pod: Pod, facts: Facts, direction: Guard) -> bool:
    """TCP goes both ways or not at all, so for it a guard on the way back counts too."""
    is_tcp = facts.tuple.protocol == socket.IPPROTO_TCP
    return bool(pod.guard) if is_tcp else direction in pod.guard


def _is_translated(flow: Flow) -> bool:
    return flow.behind != flow.tuple


def _bypassed(flow: Flow, ways: dict[Way, Verdict]) -> Verdict:
    verdict: Verdict = Verdict.NAT if _is_translated(flow) else ways.get(flow.way, Verdict.ROUTED)
    return verdict


def is_bypassed(verdict: Verdict) -> bool:
    """Whether a packet of that verdict goes past the kernel path."""
    return verdict.kind is VerdictKind.BYPASSED
