# SPDX-License-Identifier: Apache-2.0
"""A packet whose note another one has overwritten is not taken for a translation of that one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from bench import Bench
from frames import Frame
from tables.arriving import ANSWER, arriving
from tables.case import DATAGRAM, handed_over, noted, only
from tables.leaving import leaving, left
from testrun import Context
from world import NEIGHBOUR, NEIGHBOUR_VETH, NIC, REMOTE, UDP_FLOW, VETH, Approval, Note
from worldmaps import put_note, stand

from vxlane.datapath.abi import Program, Verdict

STAMP = 4711
SERVICE = IPv4Address("10.96.0.10")
# What comes back from a Service counts only if the pod has called it.
SENT = Approval(
    tuple=replace(UDP_FLOW, remote=SERVICE), behind=UDP_FLOW, out=5, into=None, is_confirmed=False
)
THIRD = replace(NEIGHBOUR, address=IPv4Address("10.42.1.77"))
WORLD = replace(only(), pods=(*only().pods, THIRD))


def same_content(note: Note, frame: Frame) -> Note:
    """The note of a datagram of the same length and identification."""
    raw = bytes(frame)
    length, identification = (int.from_bytes(raw[at : at + 2], "little") for at in (16, 18))
    return replace(note, content=length << 16 | identification)


def learned(bench: Bench, program: Program, frame: Frame, note: Note, ifindex: int) -> bool:
    """Whether the frame teaches something when it comes out with that note."""
    world = replace(WORLD, flows=frozenset([SENT] if program is Program.TO_POD else []))
    standing = stand(bench.maps, world)
    put_note(bench.maps, note, STAMP)
    seen = bytes(left(frame)) if program is Program.TO_NIC else bytes(frame)
    with bench.counting() as moved:
        bench.runners[program].run(seen, Context(ifindex=ifindex, stamp=STAMP))
    ((_, verdict),) = moved.verdicts
    assert verdict in {Verdict.LEARNED, Verdict.CHANGED}
    assert (standing.flows() != world.flows) == (verdict is Verdict.LEARNED)
    return verdict is Verdict.LEARNED


OUT = (Program.TO_NIC, leaving(DATAGRAM), 1, NIC)
IN = (Program.TO_POD, arriving(ANSWER, source=SERVICE), 1, VETH)
NEAR = (Program.TO_POD, handed_over(DATAGRAM), 0, NEIGHBOUR_VETH)
FAR = (Program.TO_POD, arriving(ANSWER), 1, VETH)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("place", "change", "is_learned"),
    [
        (OUT, {"destination": SERVICE}, True),
        (IN, {"source": REMOTE}, True),
        (NEAR, {"destination": SERVICE}, True),
        (OUT, {"source": THIRD.address}, False),
        (IN, {"source": REMOTE, "destination": THIRD.address}, False),
        (NEAR, {"source": THIRD.address}, False),
        (NEAR, {"destination": THIRD.address}, False),
        (OUT, {"destination": THIRD.address}, False),
        (NEAR, {"destination": REMOTE}, False),
        (FAR, {"source": NEIGHBOUR.address, "destination": SERVICE}, False),
    ],
    ids=[
        *("out", "in", "near", "out-from", "in-to", "near-from", "near-to"),
        *("out-to", "near-far", "far-from"),
    ],
)
def test_pods_keep_their_addresses(
    bench: Bench,
    place: tuple[Program, Frame, int, int],
    change: dict[str, IPv4Address],
    is_learned: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    """NAT may change an address, but no pod's into another's; and the packet must be the same one.

    A pod that sends much, and all of the length of another's datagrams, would else get to send in
    that one's flow.
    """
    program, frame, hops, ifindex = place
    note = noted(frame, hops)
    assert note
    note = replace(same_content(note, frame), **change)
    assert learned(bench, program, frame, note, ifindex) == is_learned
    other = replace(note, content=note.content ^ 1)
    assert not learned(bench, program, frame, other, ifindex)
