# SPDX-License-Identifier: Apache-2.0
"""Whether the node's rules treat the tunnel's packets alike, whether conntrack tracks them or not.

Conntrack calls each packet of a tunnel NEW, because replies go to another port than the one that
was sent from. So rules for RELATED and ESTABLISHED connections fit neither kind. A rule that tells
NEW from UNTRACKED matters in two cases: it names the tunnel's port, or an untracked packet may be
dropped in that chain. kube-proxy's jumps for NEW connections cost no packet, and neither do ufw's
accepts before a policy that accepts. Pure.
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
"""Tests that may fit a tracked packet and not an untracked one. connlimit is a limit, too."""
_STEERS: frozenset[Met] = frozenset(
    {Kind.MARK, Kind.ZONE, Kind.TPROXY, Kind.SYNPROXY, Kind.QUEUE, Kind.REWRITE, Kind.UNKNOWN}
)
"""Actions that may send packets another way, so that a verdict does not tell where they end."""


def hindrances(bases: Sequence[Base], rules: RulesOf, view: View) -> tuple[str, ...]:
    """The names of chains because of which the tunnel's packets must be tracked.

    A chain of type nat is one if it translates the tunnel: untracked packets are not translated.
    Only the rules of nat base chains are looked at. Their jumps lead to kube-proxy's thousands of
    chains, which test a Service's address or a mark, and the tunnel's packets have no mark.
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
    """Whether a rule tests the tunnel's port and the state NEW. Such a rule opens a firewall, and
    a rule that drops everything else may follow.
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
    """Whether some untracked packet may be dropped."""
    walk = Walk(rules, untracked(packet), {Code.DROP})
    comes_out = walk.chain(base.key, Scope())
    return bool(walk.met) or (comes_out and base.drops)
