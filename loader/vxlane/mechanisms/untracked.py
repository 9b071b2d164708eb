# SPDX-License-Identifier: Apache-2.0
"""Whether the node's rules treat the tunnel's packets alike, tracked by conntrack or not.

conntrack calls each packet of a tunnel NEW, for replies go to another port than the one that was
sent from. So rules for RELATED and ESTABLISHED connections fit neither. A rule that tells NEW from
UNTRACKED matters if it names the tunnel's port, or if an untracked packet may be dropped in that
chain: kube-proxy's jumps for NEW connections, and ufw's accepts before a policy that accepts, cost
no packet. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vxlane.mechanisms.findings import is_before_conntrack, of_tunnel
from vxlane.mechanisms.kinds import Kind, Scope
from vxlane.mechanisms.packet import (
    Field,
    Match,
    NameTest,
    NumberTest,
    Packet,
    View,
    received,
    sent,
    unfollowed,
    untracked,
)
from vxlane.mechanisms.rules import Action, Base, ChainKey, Code, Rule, Unknown
from vxlane.mechanisms.walk import Met, RulesOf, Walk

_ASKS: frozenset[Met] = frozenset({Field.STATE, Unknown.CONNECTION, Kind.LIMIT, Kind.CONNBYTES})
"""Tests that may fit the one kind of packet and not the other; connlimit is a limit too."""
_STEERS: frozenset[Met] = frozenset(
    {Kind.MARK, Kind.ZONE, Kind.TPROXY, Kind.SYNPROXY, Kind.QUEUE, Kind.REWRITE, Kind.UNKNOWN}
)
"""What may lead such packets elsewhere, so that no verdict tells what becomes of them."""


def hindrances(bases: Sequence[Base], rules: RulesOf, view: View) -> tuple[str, ...]:
    """The chains for whose sake the tunnel's packets must be tracked, as a person can look them up.

    `bases` of type nat: an untracked packet is not translated. Only their own rules are looked at,
    for behind their jumps stand the thousands of chains of kube-proxy's, which ask for a Service's
    address or a mark. The tunnel's packets have no mark.
    """
    packets = sent(view), received(view)
    found: dict[str, None] = {}
    for base in bases:
        for packet in of_tunnel(base, view, *packets):
            if base.is_nat:
                chains = _translating(base, rules, packet)
            else:
                chains = _telling_apart(base, rules, packet)
            found |= dict.fromkeys(map(str, chains))
    return tuple(found)


def _translating(base: Base, rules: RulesOf, packet: Packet) -> Iterator[ChainKey]:
    own = {base.key: [rule for rule in rules(base.key) if Unknown.MARKED not in rule]}
    walk = Walk(lambda key: own.get(key, ()), packet, {Action.TRANSLATE})
    walk.chain(base.key, Scope())
    yield from (key for _, key, _ in walk.met)


def _telling_apart(base: Base, rules: RulesOf, packet: Packet) -> Iterator[ChainKey]:
    seen = unfollowed(packet) if is_before_conntrack(base) else packet
    walk = Walk(rules, seen, _ASKS | _STEERS)
    walk.chain(base.key, Scope())
    yield from (key for what, key, _ in walk.met if what in _STEERS)
    for key in walk.chains:
        if any(_opens(rule, seen) for rule in rules(key)):
            yield key
    asking = [key for what, key, _ in walk.met if what in _ASKS]
    if asking and _may_be_dropped(base, rules, packet):
        yield from asking


def _opens(rule: Rule, packet: Packet) -> bool:
    """Whether a rule asks for the tunnel's port and for NEW: a firewall is being opened, and what
    drops all else may follow.
    """
    tests = [step for step in rule if isinstance(step, NumberTest | NameTest)]
    fits = [packet.match(test) for test in tests]
    names_port = any(t.field is Field.DESTINATION_PORT and not t.is_negated for t in tests)
    asks = any(
        test.field is Field.STATE and fit is Match.SOME
        for test, fit in zip(tests, fits, strict=True)
    )
    return names_port and asks and Match.NONE not in fits


def _may_be_dropped(base: Base, rules: RulesOf, packet: Packet) -> bool:
    """Whether some untracked packet is."""
    walk = Walk(rules, untracked(packet), {Code.DROP})
    comes_out = walk.chain(base.key, Scope())
    return bool(walk.met) or (comes_out and base.drops)
