# SPDX-License-Identifier: Apache-2.0
"""Whether rules let a SYN or a SYN-ACK pass and drop what follows, because of TCP's flags.

A flow is learned from these two. One rule may tell them from later packets (`tcp flags & syn == 0
drop`), which every walk notes, or several: `tcp flags syn accept`, and then `drop`. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from vxlane.mechanisms.kinds import Kind, Scope
from vxlane.mechanisms.packet import ESTABLISHED, Field, Match, NameTest, NumberTest, Packet
from vxlane.mechanisms.rules import Base, ChainKey, Choice, Code, Rule, Verdict
from vxlane.mechanisms.walk import Met, Outcome, RulesOf, Walk

_TCP = 6
_FIN_RST, _SYN, _SYN_ACK = 0x05, 0x02, 0x12
_IS_FOLLOWED = NumberTest(Field.STATE, ((ESTABLISHED, ESTABLISHED),))
"""Whether conntrack has seen the packets."""
_PASSES: frozenset[Met] = frozenset({Code.ACCEPT, Kind.QUEUE, Kind.UNKNOWN})
"""What may let a packet pass without a look at later rules. A program may accept what is queued."""


def parting(
    base: Base, rules: RulesOf, packet: Packet, scope: Scope
) -> list[tuple[Met, ChainKey, Scope]]:
    """The drops under a base chain that packets come to whose SYN or SYN-ACK may have passed.

    Behind conntrack only SYN-ACKs count. A SYN is NEW there, and rules need no flags to tell it:
    the ACK that follows it is left to netfilter (`may_drop_established`). A SYN-ACK is ESTABLISHED
    as all that follows it is, and none of that is left to netfilter.
    """
    later = replace(packet, numbers={**packet.numbers, Field.PROTOCOL: ((_TCP, _TCP),)})
    walk = _Parting(rules, later, _opening(later))
    comes_out = walk.chain(base.key, scope)
    policy = (Kind.HEADER, base.key, scope)
    return [*walk.met, policy] if comes_out and base.drops and walk.is_apart else walk.met


def _opening(later: Packet) -> Packet:
    """The packets with SYN of the same connections, which have the same states as `later`."""
    needed = _SYN_ACK if later.match(_IS_FOLLOWED) is Match.ALL else _SYN
    flags = (n for n in range(256) if n & needed == needed and not n & _FIN_RST)
    return replace(later, numbers={**later.numbers, Field.TCP_FLAGS: tuple((n, n) for n in flags)})


class _Parting(Walk):
    """A walk that knows whether packets with SYN still go the same way."""

    def __init__(self, rules: RulesOf, later: Packet, opening: Packet) -> None:
        super().__init__(rules, later, {Kind.HEADER})
        self._opening = opening
        self._alone = Walk(rules, opening, _PASSES)
        self._has_accepted = False
        """Some packet with SYN meets nothing that follows under this base chain."""
        self._has_returned = False
        """Some packet with SYN meets nothing that follows in this chain."""

    @property
    def is_apart(self) -> bool:
        """Whether some packet with SYN may have gone another way."""
        return self._has_accepted or self._has_returned

    def _all_rules(self, key: ChainKey, scope: Scope) -> bool:
        before = self._has_returned
        comes_out = super()._all_rules(key, scope)
        self._has_returned = before
        return comes_out

    def _verdict(self, key: ChainKey, verdict: Verdict, scope: Scope) -> Outcome:
        if verdict.code is Code.DROP and self.is_apart:
            self._note(Kind.HEADER, key, scope)
        return super()._verdict(key, verdict, scope)

    def _passed_over(self, key: ChainKey, steps: Rule) -> None:
        """Follow the packets with SYN by a rule that no later packet fits."""
        for step in steps:
            if isinstance(step, NumberTest | NameTest):
                if self._opening.match(step) is Match.NONE:
                    return
            elif isinstance(step, Choice):
                for test, verdict in step.branches:
                    if not test or self._opening.match(test) is not Match.NONE:
                        self._leave(key, verdict)
            elif isinstance(step, Verdict):
                self._leave(key, step)
            else:
                self._has_accepted |= step in _PASSES

    def _leave(self, key: ChainKey, verdict: Verdict) -> None:
        """Some packet with SYN, and none that follows, comes to a verdict."""
        if verdict.code is Code.ACCEPT:
            self._has_accepted = True
        elif verdict.code is Code.RETURN:
            self._has_returned = True
        elif verdict.code in {Code.JUMP, Code.GOTO}:
            comes_out = self._enter(replace(key, chain=verdict.chain))
            self._has_returned |= comes_out and verdict.code is Code.GOTO

    def _behind_flags(self, key: ChainKey, verdict: Verdict, scope: Scope) -> None:
        super()._behind_flags(key, verdict, scope)
        if verdict.code is Code.RETURN:
            # Packets with SYN may go on in the chain that these leave.
            self._enter(key)

    def _enter(self, key: ChainKey) -> bool:
        """Take packets with SYN through a chain by themselves. True: some come out."""
        comes_out = self._alone.chain(key, Scope())
        self._has_accepted |= bool(self._alone.met)
        return comes_out
