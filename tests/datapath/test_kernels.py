# SPDX-License-Identifier: Apache-2.0
"""Programs that are built for what a kernel can or can't do, whichever kernel this is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from bench import Bench
from looker import Looker
from node import Node
from tables.case import handed_over
from tables.from_nic import ANSWER, RESPONSE, carried, inner
from tables.from_pod import LOCAL_DATA
from test_carried import attached
from test_wire import carry
from testrun import Context
from world import APPROVED, NIC, VETH
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.programs import Constants
from vxlane.probes import helpers

_HOST, _OTHER_HOST = 0, 3  # PACKET_HOST, PACKET_OTHERHOST of linux/if_packet.h


@pytest.fixture(scope="module")
def newer(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The programs as they are built for a kernel that can more."""
    constants = Constants(decap_l4_udp=True, peer_takes_as_host=True)
    return node.chamber.run(Bench, tmp_path_factory.mktemp("newer"), constants)


def takes_flag() -> bool:
    """Whether this kernel knows BPF_F_ADJ_ROOM_DECAP_L4_UDP."""
    return helpers.decapsulates_udp(None)


def test_flag_that_the_kernel_does_not_know(node: Node, newer: Bench) -> None:
    """Asked for what it can't do, the kernel refuses, and the packet takes the kernel path."""
    due = Verdict.DECAPSULATED if takes_flag() else Verdict.REFUSED
    for transport in (ANSWER, RESPONSE):
        stand(newer.maps, APPROVED)
        with attached(newer, (Program.FROM_NIC, NIC)), newer.counting() as moved:
            carry(node.wire, carried(inner(transport)), node.pod)
        assert moved.packets == {(Program.FROM_NIC, due): 1}


def test_super_packets_of_datagrams(bench: Bench, newer: Bench) -> None:
    """Only with the flag a UDP super-packet is popped; without, it is left alone by name."""
    found = []
    for one in (bench, newer):
        stand(one.maps, APPROVED)
        with one.counting() as moved:
            frame = bytes(carried(inner(ANSWER)))
            one.runners[Program.FROM_NIC].run(frame, Context(ifindex=NIC, gso_size=1400))
        found += moved.packets
    with_flag = Verdict.DECAPSULATED if takes_flag() else Verdict.REFUSED
    assert found == [(Program.FROM_NIC, Verdict.GSO), (Program.FROM_NIC, with_flag)]


@contextlib.contextmanager
def looking_behind(bench: Bench) -> Iterator[Looker]:
    """Look at what a program leaves behind, from the tracer's place."""
    with contextlib.closing(Looker()) as looker:
        bench.maps.put_tracer(looker.program)
        try:
            yield looker
        finally:
            bench.maps.delete_tracer()


def test_frame_through_the_bridge(bench: Bench, newer: Bench) -> None:
    """A frame for another pod's MAC is made one for the receiver, where the kernel does not."""
    found = []
    for one in (bench, newer):
        stand(one.maps, APPROVED)
        with looking_behind(one) as looker:
            frame = bytes(handed_over(LOCAL_DATA))
            one.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH))
            found.append(looker.seen()["pkt_type"])
    assert found == [_HOST, _OTHER_HOST]
