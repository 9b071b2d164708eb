# SPDX-License-Identifier: Apache-2.0
"""The ACK of a handshake whose SYN and SYN-ACK have been seen: it is bypassed, and its connection
is open behind it. Conntrack is shown a copy, see test_shown.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from frames import ACK, FIN, SYN, Frame
from tables.arriving import REPLY, arriving
from tables.case import ACK_DATA, handed_over, only, sent
from tables.closing import without_bridge_netfilter, without_devices
from tables.leaving import leaving
from tables.nat import pod_sends
from test_half_closed import entries, learn, records, say
from testrun import Action, Context
from world import (
    ANSWERED,
    END_POD,
    END_REMOTE,
    LOCAL_TCP,
    NEIGHBOUR_VETH,
    NIC,
    POD,
    TCP_FLOW,
    VETH,
    Approval,
    World,
)
from worldmaps import stand

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program

FIRST, FIRST_BACK = 1000, 3000
"""The sequence numbers of SYN and SYN-ACK."""
OPENS: dict[str, Any] = {"flags": SYN, "payload": b"", "sequence": FIRST, "acknowledged": 0}
ANSWERS: dict[str, Any] = {
    "flags": SYN | ACK,
    "payload": b"",
    "sequence": FIRST_BACK,
    "acknowledged": FIRST + 1,
}
ACKS: dict[str, Any] = {
    "flags": ACK,
    "payload": b"",
    "sequence": FIRST + 1,
    "acknowledged": FIRST_BACK + 1,
}
ASKS, RESPONDS = (
    ACKS | {"payload": b"?"},
    ANSWERS
    | {
        "flags": ACK,
        "payload": b"!",
        "sequence": FIRST_BACK + 1,
    },
)
PEERS, NEIGHBOURS = Approval(tuple=TCP_FLOW), Approval(tuple=LOCAL_TCP)
BACK = NEIGHBOURS.mirrored


def leaves(bench: Bench, segment: dict[str, Any]) -> None:
    """A segment of the pod's to a peer comes out of the kernel path."""
    learn(bench, Program.TO_NIC, leaving(replace(ACK_DATA, **segment)), NIC)


def comes(bench: Bench, segment: dict[str, Any]) -> None:
    """A segment of the peer's comes out."""
    learn(bench, Program.TO_POD, arriving(replace(REPLY, **segment)), VETH)


def crosses(bench: Bench, flow: Approval, segment: dict[str, Any]) -> None:
    """A segment of a pod's to the other one of the node comes out, as the bridge hands it over."""
    frame, veth = neighbour(flow, segment), NEIGHBOUR_VETH if flow == NEIGHBOURS else VETH
    learn(bench, Program.TO_POD, frame, veth, hops=0)


def neighbour(flow: Approval, segment: dict[str, Any]) -> Frame:
    """A frame between two pods of the node."""
    if flow == NEIGHBOURS:
        return handed_over(replace(ACK_DATA, source=40002, dest=8080, **segment))
    return pod_sends(flow, dest_mac=POD.mac, **segment)


def pod_frame(flow: Approval, segment: dict[str, Any]) -> Frame:
    """A segment as the flow's pod sends it."""
    return sent(replace(ACK_DATA, **segment)) if flow is PEERS else neighbour(flow, segment)


def is_bypassed(bench: Bench, flow: Approval, segment: dict[str, Any]) -> bool:
    """Whether it is."""
    frame = pod_frame(flow, segment)
    run = bench.runners[Program.FROM_POD].run
    return run(bytes(frame), Context(ifindex=flow.ifindex)).action is Action.REDIRECT


def shake(bench: Bench, flow: Approval, world: World, answer: dict[str, Any] = ANSWERS) -> None:
    """Both halves of a handshake come out in `world`."""
    stand(bench.maps, world)
    if flow is PEERS:
        leaves(bench, OPENS)
        comes(bench, answer)
    else:
        crosses(bench, NEIGHBOURS, OPENS)
        crosses(bench, BACK, answer)


BOTH_WAYS = pytest.mark.parametrize("flow", [PEERS, NEIGHBOURS], ids=["peer", "neighbour"])


@pytest.mark.usefixtures("node")
@BOTH_WAYS
def test_the_ack_opens(bench: Bench, flow: Approval) -> None:
    """Nothing else is bypassed before it. Behind it request and response are."""
    shake(bench, flow, only())
    assert [record.open for record in records(bench)] == [0]
    assert not is_bypassed(bench, flow, ASKS)
    assert is_bypassed(bench, flow, ACKS)
    (record,) = records(bench)
    assert (record.open, record.sent, record.received) == (1, FIRST + 1, FIRST_BACK + 1)
    assert is_bypassed(bench, flow, ASKS)
    if flow is PEERS:
        assert say(bench, "peer", PEERS, **RESPONDS) is Action.REDIRECT
    else:
        assert is_bypassed(bench, BACK, RESPONDS)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("opener", [NEIGHBOURS, BACK], ids=["low end", "high end"])
@pytest.mark.parametrize(
    "before", [(), (NEIGHBOURS,), (BACK,)], ids=["new", "the low end's", "the high end's"]
)
def test_either_neighbour_opens(
    bench: Bench, opener: Approval, before: tuple[Approval, ...]
) -> None:
    """Whosever the record of the ports was before, the two have one, and it says who has opened."""
    stand(bench.maps, only(*before))
    for flow, segment in ((opener, OPENS), (opener.mirrored, ANSWERS)):
        assert not is_bypassed(bench, flow, segment)
        crosses(bench, flow, segment)
    (record,) = records(bench)
    is_owner = record.side == opener.tuple.side
    assert record.opener == (END_POD if is_owner else END_REMOTE) | ANSWERED
    reached = (record.sent, record.received) if is_owner else (record.received, record.sent)
    assert reached == (FIRST + 1, FIRST_BACK + 1)
    assert not is_bypassed(bench, opener, ASKS)
    assert is_bypassed(bench, opener, ACKS)
    assert is_bypassed(bench, opener, ASKS)
    assert is_bypassed(bench, opener.mirrored, RESPONDS)


@pytest.mark.usefixtures("node")
@BOTH_WAYS
def test_what_comes_before_the_answer_opens_nothing(bench: Bench, flow: Approval) -> None:
    """An ACK of who asks is INVALID to conntrack before the SYN-ACK."""
    stand(bench.maps, only())
    for segment in (OPENS, ACKS):
        if flow is PEERS:
            leaves(bench, segment)
        else:
            crosses(bench, flow, segment)
    assert [record.open for record in records(bench)] == [0]


OTHERS = {
    "other number": {"sequence": FIRST + 2},
    "acknowledges more": {"acknowledged": FIRST_BACK + 2},
    "acknowledges less": {"acknowledged": FIRST_BACK},
    "FIN": {"flags": ACK | FIN},
    "data": {"payload": b"?"},
}


@pytest.mark.usefixtures("node")
@BOTH_WAYS
@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_no_other_segment_opens(bench: Bench, flow: Approval, change: dict[str, Any]) -> None:
    """What is not just the ACK of the handshake takes the kernel path."""
    shake(bench, flow, only())
    assert not is_bypassed(bench, flow, ACKS | change)
    assert {record.open for record in records(bench)} == {0}


@pytest.mark.usefixtures("node")
@BOTH_WAYS
@pytest.mark.parametrize(
    "world",
    [replace(only(), heard=True), replace(only(), may_drop=True), without_devices(only())],
    ids=["somebody listens", "a rule may drop it", "no copy can be made"],
)
def test_the_kernel_path_has_it(bench: Bench, flow: Approval, world: World) -> None:
    """Where conntrack must see the ACK itself, it opens the connection when it has come out."""
    shake(bench, flow, world)
    assert not is_bypassed(bench, flow, ACKS)
    assert {record.open for record in records(bench)} == {0}
    if flow is PEERS:
        leaves(bench, ACKS)
    else:
        crosses(bench, NEIGHBOURS, ACKS)
    assert {record.open for record in records(bench)} == {1}
    assert is_bypassed(bench, flow, ASKS)


@pytest.mark.usefixtures("node")
def test_past_netfilter(bench: Bench) -> None:
    """Where netfilter does not see the bridge, there is nothing to show."""
    shake(bench, NEIGHBOURS, without_bridge_netfilter(only()))
    assert is_bypassed(bench, NEIGHBOURS, ACKS)
    assert is_bypassed(bench, BACK, RESPONDS)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("segments", [[], [OPENS], [ANSWERS]], ids=["none", "SYN", "SYN-ACK"])
def test_both_halves_are_needed(bench: Bench, segments: list[dict[str, Any]]) -> None:
    """An ACK that has not had SYN and SYN-ACK before it opens nothing."""
    stand(bench.maps, only())
    for segment in segments:
        if segment is OPENS:
            leaves(bench, segment)
        else:
            comes(bench, segment)
    assert not is_bypassed(bench, PEERS, ACKS)


@pytest.mark.usefixtures("node")
@BOTH_WAYS
def test_only_a_syn_ack_answers(bench: Bench, flow: Approval) -> None:
    """Conntrack takes no connection for established whose SYN is answered by other than SYN-ACK."""
    shake(bench, flow, only(), answer=ANSWERS | {"flags": ACK, "payload": b"!"})
    assert not is_bypassed(bench, flow, ACKS)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    "change", [{"epoch": 6}, {"ifindex": 999}, {"nic": 999}, {"seen_in": 0}], ids=str
)
def test_the_record_is_of_this_handshake(bench: Bench, change: dict[str, int]) -> None:
    """The ACK opens no record of other pods, of another epoch or of one half."""
    shake(bench, NEIGHBOURS, only())
    alter(bench, NEIGHBOURS, change)
    assert not is_bypassed(bench, NEIGHBOURS, ACKS)
    assert {record.open for record in records(bench)} == {0}


def alter(bench: Bench, flow: Approval, change: dict[str, int]) -> None:
    """Change fields of a record."""
    key = flow.tuple.key
    (record,) = (value for found, value in entries(bench) if found == key)
    for name, value in change.items():
        setattr(record, name, value)
    syscall.map_update(bench.maps._fds["flows"], key, bytes(record))
