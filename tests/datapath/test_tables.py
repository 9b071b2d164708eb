# SPDX-License-Identifier: Apache-2.0
"""Whole packet in, whole packet out: every row of the tables, through the real programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench import Bench
from frames import ETHERNET, UDP, checksum, mac
from tables import (
    admission,
    arriving,
    closing,
    direct,
    from_nic,
    from_pod,
    from_tunnel,
    leaving,
    nat,
    nat_learned,
    nat_local,
    nat_local_refused,
    nat_refused,
    sides,
)
from tables.case import Case
from testrun import Action, Context
from world import PEER, PORT, VETH, Approval, peer_of
from worldmaps import Standing, put_note, stand

from vxlane.datapath.abi import Program, Verdict, VerdictKind
from vxlane.datapath.programs import Strictness
from vxlane.datapath.records import Count, PeerCount

CASES = [
    *from_pod.CASES,
    *from_nic.CASES,
    *from_tunnel.CASES,
    *direct.CASES,
    *admission.CASES,
    *closing.CASES,
    *leaving.CASES,
    *arriving.CASES,
    *nat.CASES,
    *nat_refused.CASES,
    *nat_learned.CASES,
    *nat_local.CASES,
    *nat_local_refused.CASES,
    *sides.CASES,
]
# What a test run can't show: test_full_map.py fills the map; a hash and BIG TCP need a live skb.
ELSEWHERE = {Verdict.MAP_FULL, Verdict.FLOW_REHASHED, Verdict.BIG_TCP}
STAMP = 4711
PAGES = Path(__file__).parents[2] / "docs/verdicts"


@pytest.fixture(params=["bench", "strict_bench"])
def either(request: pytest.FixtureRequest) -> Bench:
    """Both builds."""
    made: Bench = request.getfixturevalue(request.param)
    return made


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_packet(either: Bench, case: Case) -> None:
    """The whole frame, the TC action, the flow records and the counters are as the row says."""
    standing = stand(either.maps, case.world)
    frame = bytes(case.frame)
    stamp = 0
    if case.note:
        stamp = STAMP
        put_note(either.maps, case.note, stamp)
    context = case.context(stamp)
    with either.counting() as moved:
        result = either.runners[case.program].run(frame, context)

    assert moved.verdicts == {(case.program, case.verdict): Count(1, len(frame))}
    assert result.action == action(case.verdict, either.constants.strict)
    output = frame if case.output is None else bytes(case.output)
    if is_encapsulated(case):
        assert masked(result.frame).hex(" ") == masked(output).hex(" ")
    else:
        assert result.frame.hex(" ") == output.hex(" ")
    assert result.mark == case.mark
    assert moved.peers == peer_counts(case, result.frame)
    assert standing.flows() == (case.world.flows if case.flows is None else case.flows)
    assert not unfindable(standing)
    assert standing.resets() == (case.world.resets if case.resets is None else case.resets)


def action(verdict: Verdict, strict: Strictness) -> Action:
    """What TC is told: never OK, which would keep other programs from the packet."""
    if verdict.kind is VerdictKind.BYPASSED:
        return Action.REDIRECT
    return Action.SHOT if verdict.kind is VerdictKind.IDENTITY and strict else Action.UNSPEC


def peer_counts(case: Case, output: bytes) -> dict[int, PeerCount]:
    """A bypassed frame counts for its peer in the length that the pod sees."""
    if not is_bypassed(case) or is_switched(case):
        return {}
    if case.program == Program.FROM_POD:
        return {PEER.slot: PeerCount(1, len(bytes(case.frame)), 0, 0)}
    return {PEER.slot: PeerCount(0, 0, 1, len(output))}


def is_bypassed(case: Case) -> bool:
    """Whether the frame goes past the kernel path."""
    return case.verdict.kind is VerdictKind.BYPASSED


def is_switched(case: Case) -> bool:
    """Whether a frame of a pod goes to another pod of this node."""
    if not is_bypassed(case) or case.program is not Program.FROM_POD:
        return False
    return bytes(case.output or case.frame)[:6] in {mac(pod.mac) for pod in case.world.pods}


def is_encapsulated(case: Case) -> bool:
    """Whether the frame leaves in VXLAN."""
    if not is_bypassed(case) or case.program is not Program.FROM_POD:
        return False
    output = bytes(case.output or case.frame)
    return output[23] == UDP and output[36:38] == PORT.to_bytes(2, "big")


def unfindable(standing: Standing) -> list[Approval]:
    """Translated flows that have come in, or are a neighbour's too, and are not found by what the
    other end sends.
    """
    known = standing.translations()
    return [
        flow
        for flow in standing.flows()
        if flow.behind
        and (flow.into is not None or not peer_of(flow.behind.remote, standing.peers))
        and known.get(flow.behind.key) != flow.tuple.key
    ]


def masked(frame: bytes) -> bytes:
    """A VXLAN frame without its IP identification, which is random, and so without the checksum."""
    assert checksum(frame[ETHERNET : ETHERNET + 20]) == 0
    return frame[:18] + b"??" + frame[20:24] + b"??" + frame[26:]


def test_every_verdict_has_its_row() -> None:
    """Between them the tables reach every verdict that there is."""
    assert {case.verdict for case in CASES} | ELSEWHERE == set(Verdict)


def test_every_program_has_its_rows() -> None:
    """No program is without a table."""
    assert {case.program for case in CASES} == set(Program)


def test_pages_name_the_programs() -> None:
    """The page of a verdict says that it is counted where a row has it."""
    for case in CASES:
        text = (PAGES / f"{case.verdict.label}.md").read_text(encoding="utf-8")
        [places] = re.findall(r"^Counted at (.+)\.$", text, re.MULTILINE)
        assert places == "every program" or case.program.label in places, case


def test_facts_are_told_apart() -> None:
    """No two rows go by the same name."""
    assert len({str(case) for case in CASES}) == len(CASES)


def test_identification_varies(bench: Bench) -> None:
    """Packets of a flow have different IP identifications: the wire may fragment them."""
    stand(bench.maps, from_pod.many_udp_flows(1))
    assert len({encapsulated(bench, 0)[18:20] for _ in range(64)}) > 56


def encapsulated(bench: Bench, flow: int) -> bytes:
    """A datagram of a flow, by its number, as it leaves."""
    frame = bytes(from_pod.udp_from(flow))
    return bench.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH)).frame
