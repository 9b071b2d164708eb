# SPDX-License-Identifier: Apache-2.0
"""Almost valid frames by the thousand: what the programs do is what the oracle works out.

Never a redirect that the oracle refuses, always one that it demands; what leaves is equal to the
oracle's own bytes, and what does not leave is unchanged to the byte. Flow records are compared
after every world. The seed is fixed for every day and new with --full; FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from bases import BASES, FLOWS, NAT_BASES, NAT_FLOWS
from bench import Bench
from forwarding import Key, priority, read
from frames import ENCAPSULATION, TCP, UDP
from halves import flow_of, halves_of, key_of
from mutation import Mutator
from oracle import Judgement, Oracle
from tables.nat import SERVICE
from testrun import Action, Context, Result
from world import (
    END_POD,
    END_REMOTE,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NIC,
    NO_DEVICE,
    NODE_ADDRESS,
    OTHER_PEER,
    OVERLAY,
    PEER,
    POD,
    REMOTE,
    ROUTER_MAC,
    VETH,
    Approval,
    Crossing,
    Note,
    World,
)
from worldmaps import Standing, put_flow, put_note, stand

from vxlane.datapath.abi import Guard, Program, Verdict, Way

EVERY_DAY, FULL = 60_000, 2_000_000
PER_WORLD = 500
STAMP = 4711


# The verdicts that a program is there for.
WAYS = {
    Program.FROM_POD: {Verdict.ENCAPSULATED, Verdict.ROUTED, Verdict.SWITCHED, Verdict.NAT},
    Program.FROM_NIC: {Verdict.DECAPSULATED, Verdict.ROUTED, Verdict.NAT},
    Program.TO_POD: {Verdict.LEARNED, Verdict.TRANSLATED},
    Program.TO_NIC: {Verdict.LEARNED, Verdict.TRANSLATED},
}
# Far from the limits of 10 and 30 s, so that a slow machine changes no verdict.
AGES = (1, 1, 1, 1, 1, 1, 1, 1, 4, 20, 60, None)
# Of translated UDP, whose limit is 0.9 s.
SHORT_AGES = (0, 0, 0, 0, 0, 0, 0, 0, 4, 20, None)
# Whose FIN has passed, and which of both the other end has acknowledged.
CLOSING = (1, 2, 3, 5, 7, 11, 15)
# How a translated flow may cross between two pods of this node.
CROSSINGS = (
    Crossing(by_gateway=True),
    Crossing(),
    Crossing(is_routed=True, by_gateway=True, source_mac=ROUTER_MAC),
)
FRESH, AGED = 300_000_000, 800_000_000  # ns: when records of age 0 are made anew, must have been


def some_world(dice: random.Random) -> World:
    """A world in which most things are as they should be."""

    def mostly(usual: object, *unusual: object) -> object:
        return usual if dice.random() < 0.85 else dice.choice(unusual)

    pods = tuple(
        replace(
            pod,
            guard=mostly(Guard(0), *Guard, Guard.FROM_POD | Guard.TO_POD),
            mtu=mostly(pod.mtu, 80, 1400, 9000),
            bridge=mostly(pod.bridge, NO_DEVICE),
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
            out=dice.choice(ages_of(flow)),
            into=dice.choice(ages_of(flow)),
            epoch=mostly(flow.epoch, 6, 8),
            ifindex=mostly(flow.ifindex, 999, flow.ifindex),
            closing=mostly(0, *CLOSING) if flow.tuple.protocol == TCP else 0,
            is_confirmed=flow.behind is None or bool(mostly(1, 0)),
            neighbour=mostly(flow.neighbour, 999, flow.neighbour),
            opener=mostly(flow.opener, 0, END_POD, END_REMOTE) if flow.opener else 0,
            there=mostly(flow.there, *CROSSINGS),
            back=mostly(flow.back, *CROSSINGS),
        )
        for flow in (*FLOWS, *NAT_FLOWS)
        if dice.random() < 0.95
    ]
    return World(
        pods=pods,
        peers=peers,
        flows=frozenset(flows),
        lease=mostly(60, 60, 60, -1),
        judged_nat=dice.random() < 0.05,
        vtep=mostly(OVERLAY, 0),
        heard=dice.random() < 0.3,
        may_drop=dice.random() < 0.05,
    )


def ages_of(flow: Approval) -> tuple[int | None, ...]:
    """The ages of its halves to choose from."""
    return SHORT_AGES if flow.behind and flow.tuple.protocol == UDP else AGES


class Fuzz:
    """Runs mutants of one program through it and through the oracle."""

    def __init__(self, bench: Bench, program: Program, seed: int) -> None:
        self._bench, self._program, self._seed = bench, program, seed
        self._dice = random.Random(seed)
        self._bases = BASES[program]
        self._nat_bases = NAT_BASES.get(program, self._bases)
        bases = (*self._bases, *self._nat_bases)
        self._mutator = Mutator(self._dice, [base.frame for base in bases])
        self._run = bench.runners[program].run
        self.bypassed = self.forgotten = self.closed = self.unstamped = 0
        self._made = 0

    def run(self, count: int) -> None:
        """Run `count` mutants, in ever new worlds."""
        for _ in range(count // PER_WORLD):
            world = some_world(self._dice)
            standing = stand(self._bench.maps, world)
            oracle = Oracle(world)
            self._made = standing.since
            for _ in range(PER_WORLD):
                self._renew(oracle, standing)
                self._one(oracle, standing)
            flows = {key_of(flow): halves_of(flow) for flow in standing.flows()}
            assert flows == oracle.known(), f"seed {self._seed}: flow records in {world}"
            resets = {key_of(Approval(tuple=one)) for one in standing.resets()}
            assert resets == oracle.resets, f"seed {self._seed}: resets in {world}"

    def _renew(self, oracle: Oracle, standing: Standing) -> None:
        """Keep young what is to be of age 0."""
        now = time.monotonic_ns()
        if now - self._made < FRESH or self._program not in {Program.FROM_POD, Program.FROM_NIC}:
            return
        for key, halves in oracle.flows.items():
            if halves.behind and 0 in {halves.out, halves.into}:
                flow = flow_of(key, halves)
                put_flow(standing.maps, flow, standing.since, oracle.world, now)
        self._made = now

    def _one(self, oracle: Oracle, standing: Standing) -> None:
        base = self._dice.choice(self._bases if self._dice.random() < 0.7 else self._nat_bases)
        frame = self._mutator.mutant(base.frame)
        note = self._note(frame)
        context = self._context(base.ifindex, note)
        if context.gso_size and oracle.is_shown(frame):
            # A test run's super-packet is of no kind: newer kernels refuse to copy such, with
            # EBADMSG, and older ones do not.
            context = replace(context, gso_size=0)
        result = self._run(frame, context)
        due = oracle.judge(self._program, frame, context)
        agree = (result.action, result.frame) == (Action.UNSPEC, frame)
        # The last ACK takes the kernel path while somebody listens. Which one that is the sequence
        # numbers say, of which the oracle keeps no account.
        if due and not (agree and oracle.world.heard and oracle.finished(frame)):
            agree = result.action is Action.REDIRECT and due.allows(result.frame, result.mark)
        # Of a machine that stood still no age is known.
        is_late = time.monotonic_ns() - self._made >= AGED
        assert agree or is_late, self._report(oracle, due, frame, context, result)
        self.bypassed += result.action is Action.REDIRECT
        self.unstamped += self._program is Program.TO_NIC and not note
        oracle.learn(self._program, frame, context, note)
        if self._program not in {Program.FROM_POD, Program.FROM_NIC}:
            return
        ended, twin = oracle.ended(frame)
        if ended and not is_late and oracle.judge(self._program, twin, context):
            there = {key_of(flow) for flow in standing.flows()}
            assert not there.intersection(ended), f"seed {self._seed}: {ended} not forgotten"
            self.forgotten += 1
        closed = oracle.closed(frame)
        if closed and not is_late and due:
            open_ones = {key_of(flow) for flow in standing.flows() if not flow.closing}
            assert not open_ones.intersection(closed), f"seed {self._seed}: {closed} not closed"
            self.closed += 1
        self._put_back(oracle, standing, [*ended, *closed, *oracle.finished(frame)])

    def _put_back(self, oracle: Oracle, standing: Standing, keys: list[Key]) -> None:
        """Make records what they were before a SYN, a FIN or a last ACK."""
        for key in keys:
            flow = flow_of(key, oracle.flows[key])
            put_flow(standing.maps, flow, standing.since, oracle.world, self._made)

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
            content=packet.content,
            by_gateway=not is_local,
        )
        if self._dice.random() < 0.4:
            note = self._translated(note, is_local=is_local)
        if self._dice.random() < 0.05:
            changes = self._dice.choice(
                (
                    {"ttl": packet.ttl},
                    {"tos": packet.tos ^ 0x28},
                    {"tos": packet.tos & ~1},
                    {"source_port": packet.second},
                    {"epoch": 6},
                    {"content": packet.content + 1},
                    {"protocol": packet.protocol ^ 6 ^ 17},
                    {"source": POD.address},
                )
            )
            note = replace(note, **changes)
        put_note(self._bench.maps, note, STAMP)
        return note

    def _translated(self, note: Note, *, is_local: bool) -> Note:
        """The note of a packet that netfilter has made one of another flow."""
        routed = (note.ttl + is_local) % 256
        if note.source == SERVICE:
            # The answer of a Service's pod of this node, bridged or routed.
            port = self._dice.choice((8080, 5353, note.source_port))
            changes = {"source": NEIGHBOUR.address, "source_port": port}
            ttl = (note.ttl - self._dice.choice((0, 1))) % 256
            changes |= {"ttl": ttl, "by_gateway": False}
        elif self._program is Program.TO_POD and not is_local:
            changes = self._dice.choice(
                (
                    {"destination": NODE_ADDRESS, "destination_port": 1024},
                    {"source_port": 8443},
                    {"destination_port": note.destination_port + 1},
                    {"source": REMOTE, "source_port": 30080},
                )
            )
        else:
            changes = self._dice.choice(
                (
                    {"destination": SERVICE},
                    {"destination": SERVICE, "destination_port": 443},
                    {"source_port": 1024},
                    {"destination": SERVICE, "ttl": routed, "by_gateway": True},
                )
            )
        return replace(note, **changes, outside=self._dice.random() < 0.5)

    def _context(self, ifindex: int, note: Note | None) -> Context:
        """The right context nearly always."""
        stamp, forwarded = (STAMP, priority(note.tos)) if note else (0, 0)
        if self._dice.random() < 0.95:
            return Context(ifindex=ifindex, stamp=stamp, priority=forwarded)
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
    print(dict(moved.packets), fuzz.forgotten, fuzz.closed)
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
        assert fuzz.closed > count / 5000


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
