# SPDX-License-Identifier: Apache-2.0
"""Why a verdict, in a sentence about the flow, and a command that mends it or shows more. Pure."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vxlane.datapath.abi import Guard, Verdict
from vxlane.datapath.records import Flow, Pod
from vxlane.mechanisms.packet import names_match
from vxlane.why.decide import longest, needed
from vxlane.why.facts import Facts, Packet

_SECOND = 1_000_000_000
_PODS_ONLY = "Only packets between addresses of pods are bypassed"


@dataclass(frozen=True, slots=True)
class Agent:
    """What the agent reports; nothing if none answers."""

    error: str = ""
    """Why it reports nothing; empty: it does."""
    mechanisms: Sequence[dict[str, Any]] = field(default_factory=tuple)
    """As `vxlane status --json` has them."""
    rules_unread: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What the sentences are about."""

    facts: Facts
    is_leaving: bool
    agent: Agent
    device: Callable[[int], str]
    """Names a device by its ifindex."""

    @property
    def flow(self) -> Flow | None:
        """The record by which the packet is judged."""
        return self.facts.record if self.is_leaving else self.facts.entering


Reason = tuple[str, str]
"""The sentence, and the command."""


def explain(verdict: Verdict, context: Context) -> Reason:
    """The reason of `verdict`, which `vxlane.why.decide` gave for these facts."""
    return REASONS[verdict](context)


def _bypassed(context: Context) -> Reason:
    flow, facts = context.flow, context.facts
    assert flow is not None
    seen = min(needed(flow, is_leaving=context.is_leaving))
    left = (seen + longest(facts.settings, flow) - facts.now) / _SECOND
    why = "it is bypassed, so tcpdump on cni0 or flannel.1 does not see it"
    return f"{why}. In {left:.1f} s one packet goes through netfilter again", "vxlane flows"


def _no_agent(context: Context) -> Reason:
    if context.agent.error:
        why = "no agent answers and its lease has run out, so nothing is bypassed on this node"
        return f"{why}. Start it as this node does", "systemctl start vxlane"
    why = "the bypass is off or the agent's lease has run out, so nothing is bypassed on this node"
    return why, "vxlane status"


def _no_pod(context: Context) -> Reason:
    facts = context.facts
    if facts.pod is None:
        why = f"{facts.tuple.local} is not an accelerated pod of this node: the agent was not told"
        return f"{why} of it, or leaves it out; the agent's log has the reason", "vxlane pods"
    if not facts.has_veth:
        return f"the veth of {facts.tuple.local} is gone", "vxlane pods"
    why = f"it goes to {facts.behind.remote}, a pod of this node that is no longer accelerated"
    return f"{why} or is on another bridge", "vxlane pods"


def _spoofed_mac(context: Context) -> Reason:
    facts = context.facts
    assert facts.pod is not None
    why = f"the pod's interface has the MAC {facts.mac}, but the agent knows {facts.pod.mac}"
    return f"{why}. With --strict all that it sends is dropped", "vxlane pods"


def _judged(context: Context) -> Reason:
    if context.agent.rules_unread:
        return "rules have changed, and the agent is still reading them; wait", "vxlane status"
    concerned = [
        f"{each['kind']} in {each['where']}"
        for each in context.agent.mechanisms
        if not each["ignored"] and _concerns(each, context)
    ]
    what = ", ".join(concerned) or "a rule or a device that the agent knows"
    return f"something on its path acts on every packet: {what}", "vxlane status"


def _concerns(mechanism: dict[str, Any], context: Context) -> bool:
    facts = context.facts
    if mechanism["flows"] == "translated" and not facts.is_translated:
        return False
    veths = frozenset(context.device(pod.ifindex) for pod in (facts.pod, facts.receiver) if pod)
    pods = mechanism["pods"]
    return pods in {"all", "by address"} or bool(names_match(veths, frozenset(pods.split())))


def _guarded(context: Context) -> Reason:
    pod = _guarded_pod(context)
    assert pod is not None
    is_tcp = context.facts.tuple.protocol == socket.IPPROTO_TCP
    ways = {Guard.FROM_POD: "what the pod sends", Guard.TO_POD: "what the pod is sent"}
    guarded = " and ".join(text for guard, text in ways.items() if guard in pod.guard)
    veth = context.device(pod.ifindex)
    qdisc = context.facts.qdiscs.get(pod.ifindex, "noqueue")
    is_shaped = Guard.TO_POD in pod.guard and qdisc != "noqueue"
    what, command = f"the qdisc {qdisc}", f"tc qdisc show dev {veth}"
    if not is_shaped:
        what = "another program's filter, or a bridge port that is isolated, locked or not learning"
        command = f"tc filter show dev {veth} ingress; bridge -d link show dev {veth}"
    why = f"{veth} of {pod.address} has {what}, which acts on {guarded}"
    rest = "; TCP is bypassed in both directions or in none" if is_tcp else ""
    return why + rest, command


def _guarded_pod(context: Context) -> Pod | None:
    facts = context.facts
    if not context.is_leaving or facts.pod is None:
        return facts.pod
    is_tcp = facts.tuple.protocol == socket.IPPROTO_TCP
    is_own = facts.pod.guard if is_tcp else facts.pod.guard & Guard.FROM_POD
    return facts.pod if is_own else facts.receiver


def _tcp_control(_context: Context) -> Reason:
    why = "a connection's first packets go through netfilter; nothing known keeps the later ones"
    return f"{why} from being bypassed", "vxlane flows"


def _no_peer(context: Context) -> Reason:
    if context.facts.node or context.facts.own_device:
        return _of_a_node(context)
    behind = context.facts.behind.remote
    remote = context.facts.tuple.remote if context.is_leaving else behind
    # One that is only masqueraded has the same other end behind netfilter.
    if remote != behind:
        why = f"netfilter translates {remote}, and the translation of this flow is not learned yet"
        return f"{why}: see which of translated, changed and other_outer rises", "vxlane stats"
    if context.facts.is_of_this_node and context.facts.neighbour is None:
        return f"{remote} is in this node's own pod CIDR, but no pod has it", "vxlane pods"
    why = f"{remote} is in no peer's pod CIDR: it is outside the overlay, or its node is missing"
    rest = ". If it belongs to a Service, the flow is learned from its first packets"
    return why + (rest if context.is_leaving else ""), "vxlane peers"


def _of_a_node(context: Context) -> Reason:
    """The remote address is a node's own."""
    facts, remote = context.facts, context.facts.behind.remote
    if facts.node:
        why = f"{remote} is the address of the node of {facts.node.cidr} itself, and of its"
        return f"{why} hostNetwork pods. {_PODS_ONLY}", "vxlane peers"
    is_gateway = facts.pod is not None and facts.own_device == context.device(facts.pod.bridge)
    what = ", its pods' gateway" if is_gateway else ""
    why = f"{remote} is this node's own address on {facts.own_device}{what}. {_PODS_ONLY}"
    may_be_learned = context.is_leaving and not facts.is_translated
    rest = ". A flow to a NodePort or a hostPort is learned from its first packets"
    return why + (rest if may_be_learned else ""), f"ip address show dev {facts.own_device}"


def _no_next_hop(context: Context) -> Reason:
    facts = context.facts
    assert facts.far_peer is not None
    known = facts.next_hop or "the underlay has no usable route to it"
    why = f"the node of {facts.behind.remote} is {facts.far_peer.address}, and {known}"
    return why, f"ip route get {facts.far_peer.address}"


def _flow_unknown(context: Context) -> Reason:
    facts = context.facts
    if facts.connection and facts.packet is not Packet.SYN and facts.connection.is_answered:
        why = "it is open, but neither direction leaves the kernel path as the bypass would send it"
        return f"{why}: see which verdict of to_nic and to_pod rises", "vxlane stats"
    why = "none of its packets has come out of netfilter yet; nothing known keeps it from being"
    return f"{why} learned from the next ones", "vxlane flows"


def _flow_half(context: Context) -> Reason:
    flow = context.flow
    assert flow is not None
    missing = [
        text
        for seen, text in ((flow.seen_out, "what the pod sends"), (flow.seen_in, "its answers"))
        if not seen
    ]
    if missing:
        why = f"{' and '.join(missing)} did not come out of netfilter on this node"
        return f"{why}; if that lasts, look for another path back", "ip route; ip rule"
    if flow.tuple.protocol == socket.IPPROTO_TCP:
        return "the ACK of its handshake has not been seen yet; wait", "vxlane flows"
    return "its translation was seen in one packet, and a second must confirm it", "vxlane flows"


def _flow_aged(context: Context) -> Reason:
    flow, facts = context.flow, context.facts
    assert flow is not None
    limit = longest(facts.settings, flow) / _SECOND
    why = f"its approval is older than {limit:g} s. The next packet goes through netfilter and"
    return f"{why} renews it", "vxlane status"


def _flow_withdrawn(context: Context) -> Reason:
    flow, facts = context.flow, context.facts
    assert flow is not None
    if flow.epoch != facts.settings.epoch:
        why = "approvals have been withdrawn since: rules, routes, peers, IPsec or the NIC changed,"
        why = f"{why} the agent started, or somebody ran 'vxlane flows flush'. The next packets"
        return f"{why} are learned from, unless this goes on all the time", "vxlane status"
    return "it was approved for an earlier pod with this address; wait", "vxlane flows"


def _changed(_context: Context) -> Reason:
    return (
        "netfilter translates it, and translated ICMP stays on the kernel path",
        "conntrack -L -p icmp",
    )


def _protocol(_context: Context) -> Reason:
    return "only TCP, UDP and ICMP echo are bypassed", "vxlane stats"


def _not_overlay(_context: Context) -> Reason:
    return (
        "the NIC's program takes it for traffic of the node, not of the overlay",
        "vxlane peers",
    )


REASONS: dict[Verdict, Callable[[Context], Reason]] = {
    Verdict.ENCAPSULATED: _bypassed,
    Verdict.DECAPSULATED: _bypassed,
    Verdict.SWITCHED: _bypassed,
    Verdict.ROUTED: _bypassed,
    Verdict.NAT: _bypassed,
    Verdict.NO_AGENT: _no_agent,
    Verdict.NO_POD: _no_pod,
    Verdict.NO_PEER: _no_peer,
    Verdict.NO_NEXT_HOP: _no_next_hop,
    Verdict.NOT_OVERLAY: _not_overlay,
    Verdict.SPOOFED_MAC: _spoofed_mac,
    Verdict.JUDGED: _judged,
    Verdict.GUARDED: _guarded,
    Verdict.TCP_CONTROL: _tcp_control,
    Verdict.PROTOCOL: _protocol,
    Verdict.CHANGED: _changed,
    Verdict.FLOW_UNKNOWN: _flow_unknown,
    Verdict.FLOW_HALF: _flow_half,
    Verdict.FLOW_AGED: _flow_aged,
    Verdict.FLOW_WITHDRAWN: _flow_withdrawn,
}
"""Every verdict that `vxlane.why.decide` gives."""
