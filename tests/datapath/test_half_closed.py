# SPDX-License-Identifier: Apache-2.0
"""A connection that one side has closed, and the other has not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench import Bench
from frames import ACK, FIN, Frame
from tables.arriving import REPLY, arriving
from tables.case import ACK_DATA, noted, only, sent
from tables.leaving import BOTH, leaving, left
from testrun import Action, Context
from world import NIC, VETH, put_note, stand

from vxlane.datapath import batches, syscall
from vxlane.datapath.abi import HEADER, Program

STAMP = 4711


def last_used(bench: Bench) -> list[int]:
    """When the programs say that each flow was bypassed last; 0: never."""
    shape = syscall.map_shape(bench.maps._fds["flows"])
    entries = batches.map_entries(bench.maps._fds["flows"], shape.key, shape.value)
    return [HEADER.structs["flow"].from_buffer_copy(value).used for _, value in entries]


def learn(bench: Bench, program: Program, frame: Frame, ifindex: int) -> None:
    """Have an exit see a packet that went in as itself."""
    note = noted(frame, 1)
    assert note
    put_note(bench.maps, note, STAMP)
    seen = bytes(left(frame)) if program is Program.TO_NIC else bytes(frame)
    bench.runners[program].run(seen, Context(ifindex=ifindex, stamp=STAMP))


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("closes", [False, True], ids=["open", "half-closed"])
def test_what_is_half_closed_keeps_its_timeout(bench: Bench, closes: bool) -> None:  # noqa: FBT001
    """It is bypassed again when it is learned again, but never told to conntrack as idle.

    The agent gives an idle connection five days; conntrack gives a half-closed one two minutes.
    """
    stand(bench.maps, only(BOTH))
    run = bench.runners[Program.FROM_POD].run
    if closes:
        run(bytes(sent(replace(ACK_DATA, flags=FIN | ACK))), Context(ifindex=VETH))
        data = bytes(sent(ACK_DATA))
        assert run(data, Context(ifindex=VETH)).action is Action.UNSPEC
    learn(bench, Program.TO_NIC, leaving(ACK_DATA), NIC)
    learn(bench, Program.TO_POD, arriving(REPLY), VETH)
    assert run(bytes(sent(ACK_DATA)), Context(ifindex=VETH)).action is Action.REDIRECT
    assert [used > 0 for used in last_used(bench)] == [not closes]
