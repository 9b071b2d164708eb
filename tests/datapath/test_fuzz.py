# SPDX-License-Identifier: Apache-2.0
"""Almost valid frames by the thousand: what the programs do is what the oracle works out.

Never a redirect that the oracle refuses, always one that it demands; what leaves is equal to the
oracle's own bytes, and what does not leave is unchanged to the byte. Flow records are compared
after every world. The seed is fixed for every day and new with --full; FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from bases import BASES, FLOWS
from bench import Bench
from forwarding import read
from frames import ENCAPSULATION, UDP
from mutation import Mutator
from oracle import Judgement, Key, Oracle, flow_of, halves_of, key_of
from testrun import Action, Context, Result
from world import (
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NIC,
    OTHER_PEER,
    PEER,
    POD,
    VETH,
    Approval,
    Note,
    Standing,
    World,
    put_flow,
    put_note,
    stand,
)

from vxlane.datapath.abi import Guard, Program, Verdict, Way

EVERY_DAY, FULL = 60_000, 2_000_000
PER_WORLD = 500
STAMP = 4711


# The verdicts that a program is there for.
WAYS = {
    Program.FROM_POD: {Verdict.ENCAPSULATED, Verdict.ROUTED, Verdict.SWITCHED},
    Program.FROM_NIC: {Verdict.DECAPSULATED, Verdict.ROUTED},
    Program.TO_POD: {Verdict.LEARNED},
    Program.TO_NIC: {Verdict.LEARNED},
}
# Far from the limits of 10 and 30 s, so that a slow machine changes no verdict.
AGES = (1, 1, 1, 1, 1, 1, 1, 1, 4, 20, 60, None)


def some_world(dice: random.Random) -> World:
    """A world in which most things are as they should be."""

    def mostly(usual: object, *unusual: object) -> object:
        return usual if dice.random() < 0.85 else dice.choice(unusual)

    pods = tuple(
        replace(
            pod,
            guard=mostly(Guard(0), *Guard, Guard.FROM_POD | Guard.TO_POD),
            mtu=mostly(pod.mtu, 80, 1400, 9000),
            bridge=mostly(pod.bridge, 99),
        )
        for pod in (POD, NEIGHBOUR)
    )
    peers = tuple(
        replace(
            peer,
            way=mostly(way, Way.TUNNEL, Way.DIRECT),
            mtu=mostly(peer.mtu, 80, 1400),
            ifindex=mostly(NIC, NIC, 0),
        )
        for peer, way in ((PEER, Way.TUNNEL), (OTHER_PEER, Way.DIRECT))
    )
    flows = [
        replace(
            flow,
            out=dice.choice(AGES),
            into=dice.choice(AGES),
            epoch=mostly(flow.epoch, 6, 8),
            ifindex=mostly(flow.ifindex, 999, flow.ifindex),
        )
        for flow in FLOWS
        if dice.random() < 0.95
    ]
    return World(pods=pods, peers=peers, flows=frozenset(flows), lease=mostly(60, 60, 60, -1))


class Fuzz:
    """Runs mutants of one program through it and through the oracle."""

    def __init__(self, bench: Bench, program: Program, seed: int) -> None:
        self._bench, self._program, self._seed = bench, program, seed
        self._dice = random.Random(seed)
        self._bases = BASES[program]
        self._mutator = Mutator(self._dice, [base.frame for base in self._bases])
        self._run = bench.runners[program].run
        self.bypassed = self.forgotten = self.unstamped = 0

    def run(self, count: int) -> None:
        """Run `count` mutants, in ever new worlds."""
        for _ in range(count // PER_WORLD):
            world = some_world(self._dice)
            standing = stand(self._bench.maps, world)
            oracle = Oracle(world)
            for _ in range(PER_WORLD):
                self._one(oracle, standing)
            flows = {key_of(flow): halves_of(flow) for flow in standing.flows()}
            assert flows == oracle.known(), f"seed {self._seed}: flow records in {world}"
            resets = {key_of(Approval(tuple=one)) for one in standing.resets()}
            assert resets == oracle.resets, f"seed {self._seed}: resets in {world}"

    def _one(self, oracle: Oracle, standing: Standing) -> None:
        base = self._dice.choice(self._bases)
        frame = self._mutator.mutant(base.frame)
        note = self._note(frame)
        context = self._context(base.ifindex, STAMP if note else 0)
        result = self._run(frame, context)
        due = oracle.judge(self._program, frame, context)
        if due:
            agree = result.action is Action.REDIRECT and due.allows(result.frame, result.mark)
        else:
            agree = (result.action, result.frame) == (Action.UNSPEC, frame)
        assert agree, self._report(oracle, due, frame, context, result)
        self.bypassed += due is not None
        self.unstamped += self._program is Program.TO_NIC and not note
        oracle.learn(self._program, frame, context, note)
        keys, twin = oracle.ended(frame)
        if keys and self._program in {Program.FROM_POD, Program.FROM_NIC}:
            must = oracle.judge(self._program, twin, context) is not None
            self._forgotten(oracle, standing, keys, must=must)

    def _forgotten(
        self, oracle: Oracle, standing: Standing, keys: list[Key], *, must: bool
    ) -> None:
        """Put records back that a SYN or FIN may have ended, or must."""
        there = {key_of(flow) for flow in standing.flows()}
        assert not (must and there.intersection(keys)), f"seed {self._seed}: {keys} not forgotten"
        self.forgotten += must
        for key in set(keys) - there:
            flow = flow_of(key, oracle.flows[key])
            put_flow(standing.maps, flow, standing.since, oracle.world)

    def _note(self, frame: bytes) -> Note | None:
        """What a frame was when it went in: nearly always itself, with the hops that it came."""
        is_tunnel = self._program is Program.TO_NIC and frame[23] == UDP
        packet = read(frame[ENCAPSULATION:] if is_tunnel else frame)
        if self._program not in {Program.TO_POD, Program.TO_NIC} or not packet:
            return None
        is_local = POD.address.packed[:3] == packet.source[:3] == packet.destination[:3]
        note = Note(
            source=IPv4Address(packet.source),
            destination=IPv4Address(packet.destination),
            source_port=packet.first,
            destination_port=packet.second,
            protocol=packet.protocol,
            ttl=(packet.ttl + (not is_local)) % 256,
            tos=packet.tos,
        )
        if self._dice.random() < 0.05:
            changes = self._dice.choice(
                (
                    {"ttl": packet.ttl},
                    {"tos": packet.tos ^ 0x28},
                    {"tos": packet.tos & ~1},
                    {"source_port": packet.second},
                    {"epoch": 6},
                    {"destination": IPv4Address("10.43.0.1")},
                )
            )
            note = replace(note, **changes)
        put_note(self._bench.maps, note, STAMP)
        return note

    def _context(self, ifindex: int, stamp: int) -> Context:
        """The right context nearly always."""
        if self._dice.random() < 0.95:
            return Context(ifindex=ifindex, stamp=stamp)
        return Context(
            ifindex=self._dice.choice((ifindex, VETH, NEIGHBOUR_VETH, NIC)),
            mark=self._dice.choice((0, 0, 1)),
            stamp=stamp,
            gso_size=self._dice.choice((0, 0, 100, 1400, 1430)),
        )

    def _report(
        self,
        oracle: Oracle,
        due: Judgement | None,
        frame: bytes,
        context: Context,
        result: Result,
    ) -> str:
        return (
            f"seed {self._seed}: {self._program.label} of {frame.hex()} in {context}\n"
            f"answered {result.action.name}, {result.frame.hex()}, mark {result.mark:#x};\n"
            f"the oracle says {due}\nwith {oracle.world.pods} {oracle.world.peers} {oracle.flows}"
        )


def check(bench: Bench, program: Program, *, count: int, seed: int) -> None:
    """Fuzz, and make sure that it was worth it: enough of every way past the kernel path."""
    print(f"seed {seed}")
    fuzz = Fuzz(bench, program, seed)
    with bench.counting() as moved:
        fuzz.run(count)
    print(dict(moved.packets), fuzz.forgotten)
    assert {judged for judged, _ in moved.packets} == {program}
    # to_nic counts no packet without a stamp.
    assert sum(moved.packets.values()) == count - fuzz.unstamped
    ways = {verdict: n for (_, verdict), n in moved.packets.items() if verdict in WAYS[program]}
    assert ways.keys() == WAYS[program]
    assert min(ways.values()) > count / 50
    if Verdict.LEARNED in ways:
        assert fuzz.bypassed == 0
    else:
        assert fuzz.bypassed == sum(ways.values())
        assert fuzz.forgotten > count / 5000


@pytest.mark.parametrize("program", list(Program), ids=lambda program: program.label)
def test_mutants(bench: Bench, program: Program) -> None:
    """60,000 mutants are treated as the oracle works out."""
    check(bench, program, count=EVERY_DAY, seed=int(os.environ.get("FUZZ_SEED", "20261122")))


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("program", list(Program), ids=lambda program: program.label)
def test_two_million_mutants(bench: Bench, program: Program) -> None:
    """2,000,000 mutants are treated as the oracle works out."""
    seed = os.environ.get("FUZZ_SEED") or random.SystemRandom().getrandbits(32)
    check(bench, program, count=FULL, seed=int(seed))
