# SPDX-License-Identifier: Apache-2.0
"""A pod whose veth is gone, of which the maps may not know yet, or that is a peer's now."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench import Bench
from chamber import ip
from device import INDEX, add_device
from node import Node
from tables.case import handed_over
from tables.from_nic import ANSWER, carried, inner
from tables.from_pod import LOCAL_DATAGRAM
from test_handshake import alter
from testrun import Action, Context
from world import APPROVED, LOCAL_UDP, NEIGHBOUR, NIC, UDP_FLOW, VETH, Approval, World
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict, VerdictKind, Way
from vxlane.errors import KernelError

TO_IT = {
    Program.FROM_NIC: bytes(carried(inner(ANSWER, destination=NEIGHBOUR.address))),
    Program.FROM_POD: bytes(handed_over(LOCAL_DATAGRAM)),
}
WORLD = replace(
    APPROVED,
    pods=(APPROVED.pods[0], replace(NEIGHBOUR, ifindex=INDEX)),
    flows=frozenset(
        [
            Approval(tuple=replace(UDP_FLOW, local=NEIGHBOUR.address), ifindex=INDEX),
            Approval(tuple=LOCAL_UDP, neighbour=INDEX),
        ]
    ),
)


def judged(bench: Bench) -> set[tuple[Program, Verdict, Action]]:
    """What both programs that put packets into pods make of one for the pod in question."""
    found = set()
    for program, ifindex in ((Program.FROM_NIC, NIC), (Program.FROM_POD, VETH)):
        with bench.counting() as moved:
            result = bench.runners[program].run(TO_IT[program], Context(ifindex=ifindex))
        ((_, verdict),) = moved.packets
        found.add((program, verdict, result.action))
        assert verdict.kind is VerdictKind.BYPASSED or result.frame == TO_IT[program]
    return found


THERE = {
    (Program.FROM_NIC, Verdict.DECAPSULATED, Action.REDIRECT),
    (Program.FROM_POD, Verdict.SWITCHED, Action.REDIRECT),
}
GONE = {
    (Program.FROM_NIC, Verdict.NO_POD, Action.UNSPEC),
    (Program.FROM_POD, Verdict.NO_POD, Action.UNSPEC),
}


@pytest.mark.usefixtures("device")
def test_veth_is_gone(node: Node, bench: Bench) -> None:
    """No packet is put into a veth that is gone, nor into the next one that has its index."""
    stand(bench.maps, WORLD)
    assert judged(bench) == THERE
    ip("link delete hook")
    assert judged(bench) == GONE
    add_device(node.outside.tid)
    assert judged(bench) == GONE
    stand(bench.maps, WORLD)
    assert judged(bench) == THERE
    stand(bench.maps, World())


def test_veth_never_was(bench: Bench) -> None:
    """A pod whose veth is not there is not taken into the map."""
    stand(bench.maps, World(pods=()))
    with pytest.raises(KernelError, match=f"interface {INDEX}"):
        bench.maps.put_pod(replace(NEIGHBOUR, ifindex=INDEX))
    assert bench.maps.pods() == {}


@pytest.mark.usefixtures("node")
def test_what_a_peer_sends_is_not_by_a_neighbours_record(bench: Bench) -> None:
    """What came over the bridge says nothing of what comes by a tunnel."""
    stand(bench.maps, APPROVED)
    alter(bench, Approval(tuple=UDP_FLOW), {"way": Way.LOCAL, "nic": INDEX})
    with bench.counting() as moved:
        bench.runners[Program.FROM_NIC].run(bytes(carried(inner(ANSWER))), Context(ifindex=NIC))
    assert moved.packets == {(Program.FROM_NIC, Verdict.FLOW_UNKNOWN): 1}
