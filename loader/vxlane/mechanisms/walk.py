# SPDX-License-Identifier: Apache-2.0
"""Walks packets through the rules of a chain, as the kernel does, and notes what they meet.

A rule matters only if such a packet may reach it: one that fits all of them and ends the walk
(`ct state established accept`) hides what comes after it. What can't be decided matters. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from vxlane.mechanisms.kinds import Kind, Ranges, Scope
from vxlane.mechanisms.packet import Field, Match, NameTest, NumberTest, Packet, Test
from vxlane.mechanisms.rules import Action, ChainKey, Choice, Code, Rule, Unknown, Verdict

RulesOf = Callable[[ChainKey], Sequence[Rule]]
Met = Kind | Field | Unknown | Action | Code
"""What a walk is asked to note: mechanisms, tests and verdicts."""

_NOT_KIND = frozenset({Code.DROP, Code.JUMP, Code.GOTO})
"""What must not follow a test of TCP flags: SYN and SYN-ACK teach, and they pass such a rule."""
_OF_COPIES = frozenset({Field.PACKET_TYPE, Field.IN_PORT})
"""What a copy has in another way than its packet."""


class Walk:
    """One kind of packet from one base chain on. What is `wanted` is noted where it is met: of
    tests those that decide about a verdict and do not fit all.
    """

    def __init__(self, rules: RulesOf, packet: Packet, wanted: Collection[Met]) -> None:
        self._rules = rules
        self._packet = packet
        self._wanted = wanted
        self.met: list[tuple[Met, ChainKey, Scope]] = []
        self._walked: dict[tuple[ChainKey, Scope], bool] = {}

    @property
    def chains(self) -> set[ChainKey]:
        """Where the packets have come."""
        return {key for key, _ in self._walked}

    def chain(self, key: ChainKey, scope: Scope) -> bool:
        """Walk a chain; whether some packet comes out at its end, or by a RETURN."""
        if (key, scope) not in self._walked:
            self._walked[key, scope] = True  # the kernel refuses loops; a wrong reading ends here
            self._walked[key, scope] = self._all_rules(key, scope)
        return self._walked[key, scope]

    def _all_rules(self, key: ChainKey, scope: Scope) -> bool:
        comes_out = False
        for rule in self._rules(key):
            goes_on, returns = self._rule(key, rule, scope)
            comes_out |= returns
            if not goes_on:
                return comes_out
        return True

    def _rule(self, key: ChainKey, rule: Rule, scope: Scope) -> tuple[bool, bool]:
        """Whether some packet goes on with the next rule, and whether some leaves the chain."""
        match, returns, has_flags = Match.ALL, False, False
        deciding: list[Met] = []
        for step in rule:
            if isinstance(step, (Kind, Action)):
                # What comes into a set may decide about a later packet.
                self._find_all([*(deciding if step is Kind.SET else ()), step], key, scope)
                match = Match.SOME  # whether it is a test or an action
            elif isinstance(step, Unknown):
                match = Match.SOME
                deciding.append(step)
            elif isinstance(step, (Choice, Verdict)):
                self._find_all(deciding, key, scope)
                if has_flags and isinstance(step, Verdict) and step.code in _NOT_KIND:
                    self._find(Kind.HEADER, key, scope)
                goes_on, leaves = self._ending(key, step, scope, match)
                returns |= leaves
                if not goes_on:
                    return False, returns
            elif isinstance(step, Field):
                match = Match.SOME
                deciding.append(step)
                self._find_difference(step, key, scope)
            else:
                fits = self._packet.match(step)
                if fits is Match.NONE:
                    return True, returns
                match, scope = min(match, fits), self._narrowed(scope, step)
                has_flags |= step.field is Field.TCP_FLAGS
                if fits is Match.SOME:
                    deciding.append(step.field)
                    self._find_difference(step.field, key, scope)
        return True, returns

    def _find_difference(self, field: Field, key: ChainKey, scope: Scope) -> None:
        """What a test that fits some packets finds: it may tell those of a flow from each other."""
        differs = field in _OF_COPIES and self._packet.has_copies
        if differs or field is Field.TCP_FLAGS:
            self._find(Kind.HEADER, key, scope)

    def _find_all(self, found: Iterable[Met], key: ChainKey, scope: Scope) -> None:
        for what in found:
            self._find(what, key, scope)

    def _find(self, what: Met, key: ChainKey, scope: Scope) -> None:
        if what in self._wanted:
            self.met.append((what, key, scope))

    def _ending(
        self, key: ChainKey, step: Choice | Verdict, scope: Scope, match: Match
    ) -> tuple[bool, bool]:
        """As `_rule`, for the packets (`match` of them) that come to a verdict or a map of them."""
        returns = False
        for test, verdict in step.branches if isinstance(step, Choice) else ((None, step),):
            if test:
                fits, inner = self._packet.match(test), self._narrowed(scope, test)
                if fits is Match.SOME:
                    self._find(test.field, key, scope)
                    self._find_difference(test.field, key, inner)
            else:
                fits, inner = Match.ALL if step is verdict else Match.SOME, scope
            if fits is Match.NONE:
                continue
            goes_on, leaves = self._verdict(key, verdict, inner)
            returns |= leaves
            if min(fits, match) is Match.ALL and not goes_on:
                return False, returns
        return True, returns

    def _verdict(self, key: ChainKey, verdict: Verdict, scope: Scope) -> tuple[bool, bool]:
        """As `_rule`, for packets that all come here."""
        if verdict.code in {Code.ACCEPT, Code.DROP}:
            self._find(verdict.code, key, scope)
            return False, False
        if verdict.code is Code.RETURN:
            return False, True
        comes_out = self.chain(replace(key, chain=verdict.chain), scope)
        return (comes_out, False) if verdict.code is Code.JUMP else (False, comes_out)

    def _narrowed(self, scope: Scope, test: Test) -> Scope:
        """The scope of what comes behind a test."""
        if test.is_negated or not self._packet.is_inner or test.field is self._packet.moved:
            return scope
        if isinstance(test, NameTest):
            is_port = test.field in {Field.IN_PORT, Field.OUT_PORT}
            if not is_port or any("*" in name for name in test.names):
                return scope
            ports = test.names if scope.ports is None else scope.ports & test.names
            return replace(scope, ports=ports)
        if test.mask is None and test.field is Field.SOURCE:
            return replace(scope, sources=_both(scope.sources, test))
        if test.mask is None and test.field is Field.DESTINATION:
            return replace(scope, destinations=_both(scope.destinations, test))
        return scope


def _both(known: Ranges | None, test: NumberTest) -> Ranges:
    if known is None:
        return tuple(sorted(test.ranges))
    return tuple(
        (max(a, first), min(b, last))
        for a, b in known
        for first, last in sorted(test.ranges)
        if max(a, first) <= min(b, last)
    )
