# SPDX-License-Identifier: Apache-2.0
"""Which packets that go by the kernel path are noted at their entrance, for an exit to learn of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench import Bench
from frames import ACK, FIN, RST, SYN, Frame, Tcp
from tables import from_nic
from tables.case import ACK_DATA, DATAGRAM, PING, handed_over, only, sent
from testrun import Context
from world import (
    END_POD,
    END_REMOTE,
    HEARD_POD,
    HEARD_REMOTE,
    NIC,
    SEQUENCE,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    World,
)
from worldmaps import stand

from vxlane.datapath.abi import Program

FRESH = only(Approval(tuple=TCP_FLOW, out=31, into=31), Approval(tuple=UDP_FLOW, out=31, into=31))
"""Both flows have records, which are too old for a bypass."""
CLOSING = END_POD | END_REMOTE
CLOSED = only(Approval(tuple=TCP_FLOW, out=31, into=31, closing=CLOSING))
"""Both ends have closed, and neither is known to have heard of it."""
HEARD = only(Approval(tuple=TCP_FLOW, closing=CLOSING | HEARD_POD | HEARD_REMOTE))
"""Both have."""
EMPTY = only(Approval(tuple=TCP_FLOW, out=None, into=None, is_open=False))


def noted(bench: Bench, program: Program, frame: Frame | bytes) -> int:
    """Let a packet go by the kernel path; how many notes were written of it."""
    before = bench.maps._sum("turns", 0)[0]
    ifindex = VETH if program is Program.FROM_POD else NIC
    bench.runners[program].run(bytes(frame), Context(ifindex=ifindex))
    return bench.maps._sum("turns", 0)[0] - before


def segment(flags: int, payload: bytes) -> tuple[Frame, Frame]:
    """A segment from the pod to a peer, and the like from there."""
    out = sent(replace(ACK_DATA, flags=flags, payload=payload))
    back = replace(from_nic.RESPONSE, flags=flags, payload=payload)
    return out, from_nic.inner(back)


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("flags", "payload", "world", "out", "into"),
    [
        pytest.param(SYN, b"", only(), 1, 0, id="SYN: where it leaves is learned, no more"),
        pytest.param(SYN | ACK, b"", only(), 1, 1, id="SYN-ACK"),
        pytest.param(ACK, b"data", only(), 1, 1, id="data of a flow that nobody knows"),
        pytest.param(
            ACK, b"", only(), 0, 1, id="ACK alone: of a peer's a translation may be learned"
        ),
        pytest.param(ACK, b"", EMPTY, 0, 0, id="ACK alone of a flow that a SYN has begun anew"),
        pytest.param(ACK, b"", CLOSED, 1, 1, id="ACK alone of a flow that both have closed"),
        pytest.param(ACK, b"data", CLOSED, 1, 1, id="data behind both FINs"),
        pytest.param(ACK, b"", FRESH, 1, 1, id="ACK alone of a flow that is known"),
        pytest.param(FIN | ACK, b"", FRESH, 0, 0, id="FIN"),
        pytest.param(FIN | ACK, b"data", FRESH, 0, 0, id="FIN with data"),
        pytest.param(RST, b"", FRESH, 1, 1, id="RST"),
    ],
)
def test_segments(
    bench: Bench, flags: int, payload: bytes, world: World, out: int, into: int
) -> None:
    """Of TCP those are noted of which something can be learned."""
    there, back = segment(flags, payload)
    for program, frame, wanted in (
        (Program.FROM_POD, there, out),
        (Program.FROM_NIC, from_nic.carried(back), into),
    ):
        stand(bench.maps, world)
        assert noted(bench, program, frame) == wanted, program


@pytest.mark.usefixtures("node")
def test_the_last_ack(bench: Bench) -> None:
    """The ACK behind both FINs has no record to teach any more, by either path."""
    last = replace(ACK_DATA, payload=b"", acknowledged=SEQUENCE)
    back = replace(from_nic.RESPONSE, payload=b"", acknowledged=SEQUENCE)
    for program, frame in (
        (Program.FROM_POD, sent(last)),
        (Program.FROM_NIC, from_nic.carried(from_nic.inner(back))),
    ):
        for world in (HEARD, replace(HEARD, heard=True), replace(HEARD, vtep=0, pods=())):
            stand(bench.maps, world)
            assert noted(bench, program, frame) == 0, program


@pytest.mark.usefixtures("node")
def test_a_neighbours_handshake(bench: Bench) -> None:
    """SYN and SYN-ACK are the two halves of a connection within the node."""
    stand(bench.maps, only())
    for flags in (SYN, SYN | ACK):
        frame = handed_over(Tcp(source=40002, dest=8080, flags=flags))
        assert noted(bench, Program.FROM_POD, frame) == 1


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("world", [only(), FRESH], ids=["unknown", "known"])
def test_datagrams_and_echoes(bench: Bench, world: World) -> None:
    """Each of them is noted."""
    stand(bench.maps, world)
    assert noted(bench, Program.FROM_POD, sent(DATAGRAM)) == 1
    assert noted(bench, Program.FROM_POD, sent(PING)) == 1
