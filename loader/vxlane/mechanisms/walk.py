# SPDX-License-Identifier: Apache-2.0
"""Walks packets through the rules of a chain, as the kernel does, and notes what they meet.

A rule matters only if such a packet may reach it: one that fits all of them and ends the walk
(`ct state established accept`) hides what comes after it. What can't be decided matters. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from vxlane.mechanisms.kinds import Kind, Ranges, Scope
from vxlane.mechanisms.packet import Field, Match, NameTest, NumberTest, Packet, Test
from vxlane.mechanisms.rules import Action, ChainKey, Choice, Code, Rule, Unknown, Verdict

RulesOf = Callable[[ChainKey], Sequence[Rule]]
Met = Kind | Field | Unknown | Action | Code
"""What a walk is asked to note: mechanisms, tests and verdicts."""

_UNSAFE_BEHIND_FLAGS = frozenset({Code.DROP, Code.JUMP, Code.GOTO})
"""Verdicts that make a test of TCP flags a mechanism. A flow is learned from its SYN and SYN-ACK,
which may pass such a rule while later packets do not."""
_DIFFERENT_IN_A_FLOW = frozenset({Field.TCP_FLAGS, Field.FRAGMENT})
"""Fields that differ between packets of one flow; of the second one that is the bit DF."""
_DIFFERENT_IN_COPIES = frozenset({Field.PACKET_TYPE, Field.IN_PORT})
"""Fields whose value in a copy differs from that in its packet."""


class Outcome(NamedTuple):
    """What becomes of packets that come to a rule; both may hold, each for some of them."""

    goes_on: bool
    """Some come to the next rule."""
    leaves: bool
    """Some return from the chain."""


class Walk:
    """The walk of one set of packets, from one base chain on.

    `met` lists what is `wanted` and was met. A test counts only if it decides about a verdict and
    does not fit all packets. `asks_flags`: some test of TCP's flags was come to.
    """

    def __init__(self, rules: RulesOf, packet: Packet, wanted: Collection[Met]) -> None:
        self._rules = rules
        self._packet = packet
        self._wanted = wanted
        self.met: list[tuple[Met, ChainKey, Scope]] = []
        self.asks_flags = False
        self._walked: dict[tuple[ChainKey, Scope, bool], bool] = {}

    @property
    def chains(self) -> set[ChainKey]:
        """The chains that the packets reached."""
        return {key for key, *_ in self._walked}

    @property
    def is_apart(self) -> bool:
        """Whether a chain that was walked before has to be walked again."""
        return False

    def chain(self, key: ChainKey, scope: Scope) -> bool:
        """Walk a chain. True: some packet comes out, at its end or by a RETURN."""
        walked = key, scope, self.is_apart
        if walked not in self._walked:
            self._walked[walked] = True  # the kernel refuses loops; a wrong reading ends here
            self._walked[walked] = self._all_rules(key, scope)
        return self._walked[walked]

    def _all_rules(self, key: ChainKey, scope: Scope) -> bool:
        comes_out = False
        for rule in self._rules(key):
            goes_on, returns = self._rule(key, rule, scope)
            comes_out |= returns
            if not goes_on:
                return comes_out
        return True

    def _rule(self, key: ChainKey, rule: Rule, scope: Scope) -> Outcome:
        """Take the packets through one rule."""
        match, returns, has_flags = Match.ALL, False, False
        deciding: list[Met] = []
        for at, step in enumerate(rule):
            if isinstance(step, (Kind, Action)):
                # What comes into a set may decide about a later packet.
                self._note_all([*(deciding if step is Kind.SET else ()), step], key, scope)
                match = Match.SOME  # whether it is a test or an action
            elif isinstance(step, Unknown):
                match = Match.SOME
                deciding.append(step)
            elif isinstance(step, (Choice, Verdict)):
                self._note_all(deciding, key, scope)
                goes_on, leaves = self._ending(key, step, scope, match, has_flags=has_flags)
                returns |= leaves
                if not goes_on:
                    return Outcome(goes_on=False, leaves=returns)
            elif isinstance(step, Field):
                match = Match.SOME
                deciding.append(step)
                self._note_difference(step, key, scope)
            else:
                fits = self._match(step, key, rule[at:])
                if fits is Match.NONE:
                    return Outcome(goes_on=True, leaves=returns)
                match, scope = min(match, fits), self._narrowed(scope, step)
                has_flags |= step.field is Field.TCP_FLAGS
                if fits is Match.SOME:
                    deciding.append(step.field)
                    self._note_difference(step.field, key, scope)
        return Outcome(goes_on=True, leaves=returns)

    def _match(self, test: Test, key: ChainKey, steps: Rule) -> Match:
        """How many of the packets fit a test, with which the `steps` of a rule begin."""
        fits = self._packet.match(test)
        if test.field is Field.TCP_FLAGS:
            self.asks_flags = True
            if fits is Match.NONE:
                self._passed_over(key, steps)
        return fits

    def _passed_over(self, key: ChainKey, steps: Rule) -> None:
        """No packet fits a test of TCP's flags, with which `steps` begin."""

    def _behind_flags(self, key: ChainKey, verdict: Verdict, scope: Scope) -> None:
        """Packets come to a verdict behind a test of TCP's flags."""
        if verdict.code in _UNSAFE_BEHIND_FLAGS:
            self._note(Kind.HEADER, key, scope)

    def _note_difference(self, field: Field, key: ChainKey, scope: Scope) -> None:
        """Note a test that may treat packets of one flow differently: it fits some of them."""
        differs = field in _DIFFERENT_IN_COPIES and self._packet.has_copies
        if differs or field in _DIFFERENT_IN_A_FLOW:
            self._note(Kind.HEADER, key, scope)
        if field is Field.STATUS:
            self._note(Kind.CONNBYTES, key, scope)

    def _note_all(self, found: Iterable[Met], key: ChainKey, scope: Scope) -> None:
        for what in found:
            self._note(what, key, scope)

    def _note(self, what: Met, key: ChainKey, scope: Scope) -> None:
        if what in self._wanted:
            self.met.append((what, key, scope))

    def _ending(
        self, key: ChainKey, step: Choice | Verdict, scope: Scope, match: Match, *, has_flags: bool
    ) -> Outcome:
        """Take the packets that fit a rule, `match` of all, to its verdict or its verdict map."""
        returns = False
        for test, verdict in step.branches if isinstance(step, Choice) else ((None, step),):
            if test:
                fits, inner = self._match(test, key, (test, verdict)), self._narrowed(scope, test)
                if fits is Match.SOME:
                    self._note(test.field, key, scope)
                    self._note_difference(test.field, key, inner)
            else:
                fits, inner = Match.ALL if step is verdict else Match.SOME, scope
            if fits is Match.NONE:
                continue
            if has_flags or (test and test.field is Field.TCP_FLAGS):
                self._behind_flags(key, verdict, inner)
            goes_on, leaves = self._verdict(key, verdict, inner)
            returns |= leaves
            if min(fits, match) is Match.ALL and not goes_on:
                return Outcome(goes_on=False, leaves=returns)
        return Outcome(goes_on=True, leaves=returns)

    def _verdict(self, key: ChainKey, verdict: Verdict, scope: Scope) -> Outcome:
        """What a verdict does to the packets that it is given to."""
        if verdict.code in {Code.ACCEPT, Code.DROP}:
            self._note(verdict.code, key, scope)
            return Outcome(goes_on=False, leaves=False)
        if verdict.code is Code.RETURN:
            return Outcome(goes_on=False, leaves=True)
        comes_out = self.chain(replace(key, chain=verdict.chain), scope)
        is_jump = verdict.code is Code.JUMP
        return Outcome(goes_on=comes_out and is_jump, leaves=comes_out and not is_jump)

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
