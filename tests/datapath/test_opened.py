# SPDX-License-Identifier: Apache-2.0
"""When a connection may be bypassed: once the ACK of its handshake has come out.

Until then it is SYN_RECV to conntrack, for which it may be over in a minute. With TCP Fast Open the
end that was called sends data before that ACK.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from frames import ACK, SYN, Frame
from tables.arriving import REPLY, arriving
from tables.case import ACK_DATA, only, sent
from tables.from_nic import RESPONSE, carried, inner
from tables.leaving import BOTH, leaving
from tables.nat import pod_sends
from test_half_closed import learn, records, say
from testrun import Action, Context
from world import LOCAL_TCP, NEIGHBOUR, NEIGHBOUR_VETH, NIC, POD, VETH, Approval, Tuple
from worldmaps import stand

from vxlane.datapath.abi import Program

LEAVES, COMES = Program.TO_NIC, Program.TO_POD


def says(flags: int, payload: bytes = b"") -> dict[str, Any]:
    """What a segment says."""
    return {"flags": flags, "payload": payload}


OPENS, ANSWERS, ACKS, DATA = says(SYN), says(SYN | ACK), says(ACK), says(ACK, b"data")


def passes(bench: Bench, exit_: Program, segment: dict[str, Any]) -> None:
    """A segment of the pod's, or of the peer's, comes out of the kernel path."""
    if exit_ is LEAVES:
        learn(bench, exit_, leaving(replace(ACK_DATA, **segment)), NIC)
    else:
        learn(bench, exit_, arriving(replace(REPLY, **segment)), VETH)


def is_bypassed(bench: Bench, end: str) -> bool:
    """Whether the next segment of an end is."""
    if end == "pod":
        frame: Frame | bytes = sent(ACK_DATA)
        program, ifindex = Program.FROM_POD, VETH
    else:
        frame = carried(inner(RESPONSE))
        program, ifindex = Program.FROM_NIC, NIC
    result = bench.runners[program].run(bytes(frame), Context(ifindex=ifindex))
    return result.action is Action.REDIRECT


def waits_for_the_ack(bench: Bench, exit_: Program) -> None:
    """Assert that neither end is bypassed before an ACK comes out there, and both are behind it."""
    assert not any(is_bypassed(bench, end) for end in ("pod", "peer"))
    passes(bench, exit_, ACKS)
    assert all(is_bypassed(bench, end) for end in ("pod", "peer"))


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("before", [(), (BOTH,)], ids=["new", "ports that were used"])
def test_data_before_the_ack_of_who_opens(bench: Bench, before: tuple[Approval, ...]) -> None:
    """The pod opens a connection, and the peer's data overtakes the pod's ACK."""
    stand(bench.maps, only(*before))
    passes(bench, LEAVES, OPENS)
    passes(bench, COMES, ANSWERS)
    passes(bench, COMES, DATA)
    waits_for_the_ack(bench, LEAVES)


@pytest.mark.usefixtures("node")
def test_data_before_the_ack_of_a_peer_that_opens(bench: Bench) -> None:
    """The peer opens a connection, and the pod sends data at once."""
    stand(bench.maps, only())
    passes(bench, LEAVES, ANSWERS)
    passes(bench, LEAVES, DATA)
    waits_for_the_ack(bench, COMES)


@pytest.mark.usefixtures("node")
def test_the_opener_may_change(bench: Bench) -> None:
    """The next connection of the ports, which the peer opens, waits for the peer's ACK."""
    stand(bench.maps, only())
    for exit_, segment in ((LEAVES, OPENS), (COMES, ANSWERS), (LEAVES, ACKS)):
        passes(bench, exit_, segment)
    assert is_bypassed(bench, "pod")
    say(bench, "peer", BOTH, **OPENS)
    passes(bench, LEAVES, ANSWERS)
    passes(bench, LEAVES, DATA)
    waits_for_the_ack(bench, COMES)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    "segments",
    [
        ((LEAVES, DATA), (COMES, DATA)),
        ((COMES, DATA), (LEAVES, DATA)),
        ((COMES, ANSWERS), (LEAVES, ACKS)),
    ],
    ids=["the pod's is first", "the peer's is first", "in the handshake"],
)
def test_a_connection_whose_syn_nobody_saw(
    bench: Bench, segments: tuple[tuple[Program, dict[str, Any]], ...]
) -> None:
    """One that is older than the agent is open: both ends' segments are seen. Whichever half made
    the record, it says where the flow leaves.
    """
    stand(bench.maps, only())
    for exit_, segment in segments:
        assert not is_bypassed(bench, "pod")
        passes(bench, exit_, segment)
    (record,) = records(bench)
    assert record.nic == NIC
    assert any(record.next_hop)
    assert is_bypassed(bench, "pod")
    assert is_bypassed(bench, "peer")


@pytest.mark.usefixtures("node")
def test_changed_rules_ask_for_one_packet_each_way(bench: Bench) -> None:
    """An open connection whose approval is withdrawn needs no second ACK of who opened it."""
    stand(bench.maps, only(replace(BOTH, epoch=1)))
    assert not is_bypassed(bench, "pod")
    passes(bench, COMES, DATA)
    passes(bench, LEAVES, ACKS)
    assert is_bypassed(bench, "pod")


def neighbour(flow: Tuple, segment: dict[str, Any]) -> Frame:
    """What a pod sends to the other one of the node, as the bridge hands it over."""
    receiver = NEIGHBOUR if flow.local == POD.address else POD
    return pod_sends(Approval(tuple=flow), dest_mac=receiver.mac, **segment)


@pytest.mark.usefixtures("node")
def test_neighbours(bench: Bench) -> None:
    """Between pods of a node neither goes past the kernel before the ACK of who opened has."""
    ends = {LOCAL_TCP: VETH, LOCAL_TCP.reversed: NEIGHBOUR_VETH}
    stand(bench.maps, only())

    def bypassed() -> list[bool]:
        run = bench.runners[Program.FROM_POD].run
        return [
            run(bytes(neighbour(flow, DATA)), Context(ifindex=ifindex)).action is Action.REDIRECT
            for flow, ifindex in ends.items()
        ]

    for segment in (ANSWERS, DATA):
        learn(bench, COMES, neighbour(LOCAL_TCP.reversed, segment), VETH, hops=0)
        assert bypassed() == [False, False]
    learn(bench, COMES, neighbour(LOCAL_TCP, ACKS), NEIGHBOUR_VETH, hops=0)
    assert bypassed() == [True, True]
