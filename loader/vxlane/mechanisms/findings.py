# SPDX-License-Identifier: Apache-2.0
"""Which mechanisms packets of pods may meet, bare or in the tunnel, in all chains of the node.

Here is decided which packets come to which chain; `walk` takes them through it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vxlane.mechanisms.kinds import OF_A_CONNECTION, Finding, Kind, Scope
from vxlane.mechanisms.packet import (
    Field,
    Packet,
    View,
    copied,
    established,
    framed,
    names_match,
    of_any_state,
    received,
    sent,
    tracked,
    unfollowed,
)
from vxlane.mechanisms.parting import parting
from vxlane.mechanisms.rules import Base, Code, Family, Hook
from vxlane.mechanisms.walk import RulesOf, Walk

_PER_PACKET = frozenset(Kind) - OF_A_CONNECTION
_CONNTRACK = -200
"""Priority of conntrack in PREROUTING and OUTPUT (NF_IP_PRI_CONNTRACK)."""
_DESTINATION_NAT, _SOURCE_NAT = -100, 100
"""Priorities at which packets are translated in PREROUTING and POSTROUTING (NF_IP_PRI_NAT_*), also
where the chains of type nat have others."""
_INNER_HOOKS = frozenset({Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING})
_RECEIVED_HOOKS = frozenset({Hook.PREROUTING, Hook.INPUT})
_SENT_HOOKS = frozenset({Hook.OUTPUT, Hook.POSTROUTING})
_ENDS = (Field.SOURCE, Field.DESTINATION)


def findings(bases: Sequence[Base], rules: RulesOf, view: View) -> tuple[Finding, ...]:
    """What packets of pods, bare or in the tunnel, may meet in the rules under `bases`."""
    packets = _Packets(bases, rules, view)
    found: dict[Finding, None] = {}
    translated: dict[Finding, None] = {}
    for base in bases:
        if base.is_nat:
            continue
        for packet, kinds, scope in _walks(base, packets):
            seen = unfollowed(packet) if is_before_conntrack(base) else packet
            walk = Walk(rules, seen, kinds)
            walk.chain(base.key, scope)
            may_part = walk.asks_flags and packet.is_inner and Kind.HEADER in kinds
            parted = parting(base, rules, seen, scope) if may_part else []
            met = [
                Finding(what, str(key), narrowed)
                for what, key, narrowed in (*walk.met, *parted)
                if isinstance(what, Kind)
            ]
            if packet.moved:
                translated |= dict.fromkeys(met)
            else:
                found |= dict.fromkeys(met)
    more = (replace(each, is_translated=True) for each in translated if each not in found)
    return (*found, *more)


def may_drop_established(bases: Sequence[Base], rules: RulesOf, view: View) -> bool:
    """Whether some packet of an established connection of pods may be dropped.

    Rules may let a SYN pass and drop the ACK behind it. Where this is False, none does. Before
    conntrack rules can tell the two apart by TCP's flags alone, which is a finding. Of a chain with
    the priority of conntrack itself nobody knows which is first: that depends on which came last.
    What a bridge sends (OUTPUT) conntrack may have seen in FORWARD.
    """
    of_pods = _of_pods(view)
    for base in bases:
        if base.is_nat or (base.hook == Hook.PREROUTING and base.priority < _CONNTRACK):
            continue
        for packet, kinds, _ in _walks_of_pods(base, of_pods, view):
            if kinds <= OF_A_CONNECTION:
                continue
            walk = Walk(rules, packet, {Code.DROP})
            comes_out = walk.chain(base.key, Scope())
            if walk.met or (comes_out and base.drops):
                return True
    return False


class _OfPods:
    """The packets of pods, those of translated flows apart."""

    def __init__(self, view: View, moved: Field | None) -> None:
        self.established = established(view, moved)
        self.of_any_state = of_any_state(view, moved)
        self.framed = framed(view, moved)
        self.copied = copied(self.established)
        self.framed_copied = copied(self.framed)
        # What conntrack does not follow is not translated.
        self.kinds = frozenset(Kind) - ({Kind.NOTRACK} if moved else set())


def _of_pods(view: View) -> Mapping[Field | None, _OfPods]:
    return {moved: _OfPods(view, moved) for moved in (None, *_ENDS)}


class _Packets:
    """The packets of one node, each kind made once: of 10,000 peers it takes some ms."""

    def __init__(self, bases: Sequence[Base], rules: RulesOf, view: View) -> None:
        self.view = view
        self.of_pods = _of_pods(view)
        tunnel = sent(view), received(view)
        if not _may_be_untracked(bases, rules, view, tunnel):
            tunnel = tracked(tunnel[0]), tracked(tunnel[1])
        self.sent, self.received = tunnel


def _may_be_untracked(
    bases: Sequence[Base], rules: RulesOf, view: View, tunnel: tuple[Packet, Packet]
) -> bool:
    """Whether a rule keeps packets of the tunnel out of conntrack. Ours is not among the rules: it
    is there only while no packet is lost by it.
    """
    for base in filter(is_before_conntrack, bases):
        for packet in of_tunnel(base, view, *tunnel):
            walk = Walk(rules, unfollowed(packet), {Kind.NOTRACK})
            walk.chain(base.key, Scope())
            if walk.met:
                return True
    return False


_Walks = Iterator[tuple[Packet, frozenset[Kind], Scope]]


def _walks(base: Base, packets: _Packets) -> _Walks:
    """The packets that meet a base chain, which kinds matter to them, and whose they can be."""
    yield from _walks_of_pods(base, packets.of_pods, packets.view)
    for packet in of_tunnel(base, packets.view, packets.sent, packets.received):
        yield packet, _PER_PACKET, Scope()


def _walks_of_pods(base: Base, of_pods: Mapping[Field | None, _OfPods], view: View) -> _Walks:
    """Those of pods, bare."""
    met = [of_pods[moved] for moved in (None, *_moved(base))]
    if _is_of_devices(base):
        yield from _device_walks(base.devices, view, met)
    elif base.key.family is Family.BRIDGE:
        for pods in met:
            yield pods.framed, pods.kinds, Scope()
    elif base.hook in _INNER_HOOKS:
        # Behind conntrack it is all one what becomes of a copy.
        has_copies = is_before_conntrack(base)
        for pods in met:
            packet = pods.copied if has_copies else pods.established
            yield packet, pods.kinds & _PER_PACKET, Scope()
            yield pods.of_any_state, pods.kinds & OF_A_CONNECTION, Scope()


def of_tunnel(base: Base, view: View, sent: Packet, received: Packet) -> Iterator[Packet]:
    """The packets of the tunnel that meet a base chain."""
    if _is_of_devices(base):
        if names_match(view.nics, base.devices):
            yield from (sent, received)
    elif base.key.family is not Family.BRIDGE:
        if base.hook in _RECEIVED_HOOKS:
            yield received
        if base.hook in _SENT_HOOKS:
            yield sent


def _device_walks(devices: frozenset[str], view: View, of_pods: Sequence[_OfPods]) -> _Walks:
    """Of a chain of devices: the packets of pods pass every device but NICs."""
    others = devices - view.nics - view.bridges - {view.overlay}
    for pods in of_pods:
        if names_match(view.bridges | {view.overlay}, devices):
            yield pods.framed_copied, pods.kinds, Scope()
        elif names_match(view.direct, devices):
            yield pods.framed, pods.kinds, Scope()
        if others:
            yield pods.framed, pods.kinds, Scope(ports=others)


def _is_of_devices(base: Base) -> bool:
    return base.key.family is Family.NETDEV or base.hook == Hook.INGRESS


def is_before_conntrack(base: Base) -> bool:
    """Whether conntrack has not seen a packet yet that meets a base chain."""
    is_early = base.hook in {Hook.PREROUTING, Hook.OUTPUT} and base.priority <= _CONNTRACK
    return is_early or base.hook == Hook.INGRESS


def _moved(base: Base) -> tuple[Field, ...]:
    """Which addresses of a translated flow's packets are not those of pods at a base chain.

    What goes to a Service is for a pod from PREROUTING on, the answers come from the Service from
    POSTROUTING on. Devices and bridges see packets of either direction. In between, and after the
    node's own masquerading has been taken back, packets look like those of all other flows.
    """
    if _is_of_devices(base) or base.key.family is Family.BRIDGE:
        return _ENDS
    if base.hook == Hook.PREROUTING and base.priority <= _DESTINATION_NAT:
        return (Field.DESTINATION,)
    if base.hook == Hook.POSTROUTING and base.priority >= _SOURCE_NAT:
        return (Field.SOURCE,)
    return ()
