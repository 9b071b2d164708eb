# SPDX-License-Identifier: Apache-2.0
"""A new build takes the old one's place on every hook without a packet that meets none."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from bench import Bench
from device import INDEX, NOT_IP, Device
from node import Node
from tables.from_nic import ANSWER, wire
from world import PORT, World
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.programs import Constants, ensure_loaded
from vxlane.netlink.socket import NetlinkSocket

OTHER_PORT = 4789
TO_OTHER_PORT = bytes(replace(wire(b""), transport=replace(ANSWER, dest=OTHER_PORT)))


@pytest.fixture(scope="module")
def own(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Programs that no other test uses, for they are replaced."""
    return node.chamber.run(Bench, tmp_path_factory.mktemp("own"), Constants())


@contextmanager
def traffic(device: Device) -> Iterator[list[int]]:
    """Send frames into the device beside the block; at its end the list holds how many."""
    stop, sent = threading.Event(), [0]

    def send() -> None:
        while not stop.is_set():
            device.far.send(NOT_IP)
            sent[0] += 1
            time.sleep(0.0001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        stop.set()
        sender.join()
        # The last frame through means all are: a veth keeps their order.
        device.near.drain()
        device.far.send(TO_OTHER_PORT)
        device.near.receive(lambda frame: frame == TO_OTHER_PORT)


@pytest.mark.parametrize(
    ("method", "before", "after", "last"),
    [
        pytest.param(Method.TCX, PORT, OTHER_PORT, Verdict.VXLAN_HEADER, marks=pytest.mark.tcx),
        (Method.CLSACT, OTHER_PORT, PORT, Verdict.NOT_OVERLAY),
    ],
    ids=["tcx", "clsact"],
)
def test_no_packet_meets_no_program(
    own: Bench,
    netlink: NetlinkSocket,
    device: Device,
    method: Method,
    before: int,
    after: int,
    last: Verdict,
) -> None:
    """Under traffic every frame is counted once while programs are rebuilt and put in place."""
    stand(own.maps, World())
    ensure_loaded(own.state, Constants(port=before))
    hooks = Hooks(own.pins, method, netlink)
    hooks.attach(Program.FROM_NIC, INDEX)
    with own.counting() as moved, traffic(device) as sent:
        assert ensure_loaded(own.state, Constants(port=after)).loaded
        for _ in range(50):
            hooks.refresh()
    hooks.detach_all()
    # The build has changed what the last frame's port means.
    assert moved.packets == {
        (Program.FROM_NIC, Verdict.NOT_IP): sent[0],
        (Program.FROM_NIC, last): 1,
    }
    assert sent[0] > 500
