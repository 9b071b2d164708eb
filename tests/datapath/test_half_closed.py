# SPDX-License-Identifier: Apache-2.0
"""A connection that one side has closed, or both, and the next one of the same ports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from frames import ACK, FIN, RST, SYN, TCP, Frame, Tcp
from tables.arriving import REPLY, arriving
from tables.case import ACK_DATA, handed_back, handed_over, noted, only, sent
from tables.closing import without_devices
from tables.from_nic import carried
from tables.leaving import BOTH, leaving, left
from tables.nat import (
    LOCAL_BACK,
    LOCAL_SERVICE,
    MASQUERADED_TCP,
    SERVICE_TCP,
    peer_sends,
    pod_sends,
)
from testrun import Action, Context
from world import (
    END_POD,
    END_REMOTE,
    ENDS,
    HEARD_REMOTE,
    LOCAL_TCP,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NIC,
    POD,
    REMOTE,
    SEQUENCE,
    TCP_FLOW,
    VETH,
    Approval,
    Tuple,
)
from worldmaps import put_note, stand

from vxlane.datapath import batches, syscall
from vxlane.datapath.abi import HEADER, Program, Way

STAMP = 4711


def entries(bench: Bench) -> list[tuple[bytes, Any]]:
    """Each key, and its struct flow."""
    shape = syscall.map_shape(bench.maps._fds["flows"])
    found = batches.map_entries(bench.maps._fds["flows"], shape.key, shape.value)
    return [(bytes(key), HEADER.structs["flow"].from_buffer_copy(value)) for key, value in found]


def records(bench: Bench) -> list[Any]:
    """Each struct flow."""
    return [record for _, record in entries(bench)]


def learn(bench: Bench, program: Program, frame: Frame, ifindex: int, hops: int = 1) -> None:
    """Have an exit see a packet that went in as itself."""
    note = noted(frame, hops)
    assert note
    put_note(bench.maps, note, STAMP)
    seen = bytes(left(frame)) if program is Program.TO_NIC else bytes(frame)
    bench.runners[program].run(seen, Context(ifindex=ifindex, stamp=STAMP))


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("closes", [False, True], ids=["open", "half-closed"])
def test_what_is_half_closed_keeps_its_timeout(bench: Bench, closes: bool) -> None:  # noqa: FBT001
    """It is bypassed, learned again or not, but from its FIN on never told to conntrack as idle.

    The agent gives an idle connection five days; conntrack gives a half-closed one two minutes.
    """
    stand(bench.maps, only(BOTH))
    flags = (ACK, FIN | ACK, ACK) if closes else (ACK, ACK, ACK)
    used = []
    for one in flags:
        assert say(bench, "pod", BOTH, flags=one) is Action.REDIRECT
        used += [record.used > 0 for record in records(bench)]
    assert used == [True, not closes, not closes]
    learn(bench, Program.TO_NIC, leaving(ACK_DATA), NIC)
    learn(bench, Program.TO_POD, arriving(REPLY), VETH)
    assert say(bench, "pod", BOTH, flags=ACK) is Action.REDIRECT
    assert [record.used > 0 for record in records(bench)] == [not closes]


@pytest.mark.usefixtures("node")
def test_the_next_connection_of_its_ports_is_open(bench: Bench) -> None:
    """A SYN begins anew, of which nothing is learned: what was half closed is so no more."""
    stand(bench.maps, only(BOTH))
    run = bench.runners[Program.FROM_POD].run
    left_over = []
    for flags in (FIN | ACK, SYN):
        run(bytes(sent(replace(ACK_DATA, flags=flags))), Context(ifindex=VETH))
        (record,) = records(bench)
        halves = record.seen_out > 0, record.seen_in > 0
        left_over.append((record.closing, *halves, record.open))
    assert left_over == [(END_POD, True, True, 1), (0, False, False, 0)]
    learn(bench, Program.TO_POD, arriving(replace(REPLY, flags=SYN | ACK)), VETH)
    learn(bench, Program.TO_NIC, leaving(ACK_DATA), NIC)
    assert run(bytes(sent(ACK_DATA)), Context(ifindex=VETH)).action is Action.REDIRECT
    (record,) = records(bench)
    assert (record.used > 0, record.closing) == (True, 0)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("begins", [LOCAL_TCP, LOCAL_TCP.reversed], ids=["its pod", "the other"])
def test_the_next_connection_may_come_by_another_way(bench: Bench, begins: Tuple) -> None:
    """What a pod of this node sends completes no record of a peer's: it is replaced."""
    empty = Approval(tuple=LOCAL_TCP, out=None, into=None, is_open=False)
    stand(bench.maps, only(empty))
    ((key, record),) = entries(bench)
    record.way = Way.TUNNEL
    syscall.map_update(bench.maps._fds["flows"], key, bytes(record))
    segment = Tcp(source=begins.local_port, dest=begins.remote_port, flags=SYN | ACK)
    hands, veth = (handed_over, NEIGHBOUR_VETH) if begins == LOCAL_TCP else (handed_back, VETH)
    learn(bench, Program.TO_POD, hands(segment), veth, hops=0)
    (record,) = records(bench)
    assert (record.way, record.side) == (Way.LOCAL, begins.side)
    assert (record.seen_out > 0, record.seen_in > 0) == (True, False)


PLAIN = Approval(tuple=TCP_FLOW)
BEFORE, END = 1000, 1004
"""The sequence numbers of a FIN that has four bytes before it, and the one behind it."""
CLOSES = {"flags": FIN | ACK, "payload": b"bye", "sequence": BEFORE}


def say(bench: Bench, end: str, flow: Approval, **segment: Any) -> Action:
    """Let one end of a flow send a segment, answer what becomes of it."""
    if end == "pod":
        frame: Frame | bytes = pod_sends(flow, **segment)
        program, ifindex = Program.FROM_POD, VETH
    else:
        frame = carried(peer_sends(flow, **segment))
        program, ifindex = Program.FROM_NIC, NIC
    return bench.runners[program].run(bytes(frame), Context(ifindex=ifindex)).action


def acks(number: int, payload: bytes = b"") -> dict[str, Any]:
    """A segment that acknowledges all before `number`."""
    return {"flags": ACK, "payload": payload, "acknowledged": number}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("first", ["pod", "peer"])
@pytest.mark.parametrize(
    "flow", [PLAIN, SERVICE_TCP, MASQUERADED_TCP], ids=["plain", "Service", "masqueraded"]
)
def test_what_both_have_closed_leaves_no_record(bench: Bench, flow: Approval, first: str) -> None:
    """The ACK of the second FIN ends it, and is bypassed like all that comes before it."""
    second = {"pod": "peer", "peer": "pod"}[first]
    standing = stand(bench.maps, only(flow))
    assert len(standing.translations()) == (1 if flow.behind else 0)
    for end, segment in (
        (first, CLOSES),
        (second, acks(END)),
        (second, acks(END, b"more")),
        (second, CLOSES),
        (second, {"flags": FIN | ACK, "sequence": END - 1, "payload": b"", "acknowledged": END}),
        (first, acks(BEFORE)),  # asks for what the FIN has overtaken
        (second, acks(END, b"bye")),  # sent again
        (first, acks(END, b"bye")),
    ):
        assert say(bench, end, flow, **segment) is Action.REDIRECT
        (record,) = records(bench)
    assert (record.closing, record.seen_out > 0, record.seen_in > 0) == (15, True, True)
    assert say(bench, first, flow, **acks(END)) is Action.REDIRECT
    assert records(bench) == []
    assert standing.translations() == {}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("end", "other"), [("pod", "peer"), ("peer", "pod")])
def test_what_is_sent_again_finds_its_record(bench: Bench, end: str, other: str) -> None:
    """Where both close at once, the first ACK of a FIN ends no record: other data may be lost.

    A record made anew would know of no end. The agent gave its entry, in TIME_WAIT, five days.
    """
    stand(bench.maps, only(PLAIN))
    for who, segment in (
        (end, CLOSES),
        (other, CLOSES),
        (end, acks(END)),
        (other, acks(BEFORE - 8)),
        (end, {"sequence": BEFORE - 8, **acks(END, b"lost")}),
        (other, acks(BEFORE - 4)),
        (end, {"sequence": BEFORE - 4, **acks(END, b"lost")}),
    ):
        assert say(bench, who, PLAIN, **segment) is Action.REDIRECT
        (record,) = records(bench)
    assert record.used == 0
    assert say(bench, other, PLAIN, **acks(END)) is Action.REDIRECT
    assert records(bench) == []


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("end", ["pod", "peer"])
@pytest.mark.parametrize("bypassed", [True, False], ids=["bypassed", "left to the kernel path"])
def test_a_fin_takes_a_number(bench: Bench, bypassed: bool, end: str) -> None:  # noqa: FBT001
    """What a RST or the last ACK is held against is the number behind the FIN, by either way."""
    world = only(PLAIN)
    stand(bench.maps, world if bypassed else without_devices(world))
    assert (say(bench, end, PLAIN, **CLOSES) is Action.REDIRECT) == bypassed
    (record,) = records(bench)
    reached = (END, SEQUENCE) if end == "pod" else (SEQUENCE, END)
    assert (record.sent, record.received) == reached


@pytest.mark.usefixtures("node")
def test_a_translation_that_is_anothers_stays(bench: Bench) -> None:
    """A 5-tuple that conntrack has given to another flow by now keeps that flow's translation."""
    other = Tuple(POD.address, REMOTE, 1, 1, TCP)
    standing = stand(bench.maps, only(SERVICE_TCP))
    for end, answers in (("pod", {}), ("peer", {"acknowledged": END})):
        say(bench, end, SERVICE_TCP, **CLOSES | answers)
    (entry,) = standing.translations()
    syscall.map_update(bench.maps._fds["translations"], entry, other.key)
    say(bench, "pod", SERVICE_TCP, **acks(END))
    assert records(bench) == []
    assert standing.translations() == {entry: other.key}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    "flow",
    [
        Approval(tuple=LOCAL_TCP),
        Approval(tuple=LOCAL_TCP).mirrored,
        LOCAL_SERVICE,
        LOCAL_BACK,
    ],
    ids=["from the low end", "from the high end", "Service", "Service's pod"],
)
def test_what_two_neighbours_have_closed_leaves_no_record(bench: Bench, flow: Approval) -> None:
    """Their record ends with the last ACK, also where both have closed at once."""
    there, back = flow, flow.mirrored
    standing = stand(bench.maps, only(flow))
    assert len(standing.translations()) == (1 if flow.behind else 0)
    run = bench.runners[Program.FROM_POD].run
    for one, segment, closing in (
        (there, CLOSES, END_POD),
        (back, CLOSES, ENDS),
        (there, acks(BEFORE), ENDS),
        (there, acks(END), ENDS | HEARD_REMOTE),  # as yet its own FIN is not acknowledged
        (back, acks(END), None),
    ):
        target = NEIGHBOUR.mac if one.ifindex == VETH else POD.mac
        if one.behind and one.there.by_gateway:
            target = POD.gateway_mac
        frame = pod_sends(one, dest_mac=target, **segment)
        assert run(bytes(frame), Context(ifindex=one.ifindex)).action is Action.REDIRECT
        assert [record.closing for record in records(bench)] == [closing] * (closing is not None)
    assert standing.translations() == {}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("closing", [0, END_POD, END_REMOTE])
def test_a_reset_is_told_of_what_closes_too(bench: Bench, closing: int) -> None:
    """A FIN may be one that conntrack was not shown, or has refused: its entry would stay open."""
    standing = stand(bench.maps, only(replace(BOTH, closing=closing)))
    learn(bench, Program.TO_NIC, leaving(replace(ACK_DATA, flags=RST)), NIC)
    assert standing.resets() == {BOTH.tuple}
    assert [(record.seen_out, record.seen_in) for record in records(bench)] == [(0, 0)]


@pytest.mark.usefixtures("node")
def test_a_new_connection_is_not_closed_for_a_reset(bench: Bench) -> None:
    """What a RST ended has a record still: the next SYN of its ports takes the RST back."""
    standing = stand(bench.maps, only(BOTH))
    learn(bench, Program.TO_NIC, leaving(replace(ACK_DATA, flags=RST)), NIC)
    assert [record.seen_out for record in records(bench)] == [0]
    assert say(bench, "pod", BOTH, flags=SYN) is Action.UNSPEC
    assert standing.resets() == frozenset()
    stand(bench.maps, only(BOTH))
    learn(bench, Program.TO_NIC, leaving(replace(ACK_DATA, flags=RST)), NIC)
    assert standing.resets() == {BOTH.tuple}
