# SPDX-License-Identifier: Apache-2.0
"""TCP and UDP super-packets of a pod: whole, and cut into segments by the NIC's transmit path.

The frames on the wire are those of the kernel's own path, segment by segment: where the inner frame
begins, and how long a segment is, are told to GSO by what adjust_room() was asked for.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from bench import Bench
from frames import ECT0, Frame, super_packet, without_chance
from node import Node
from tables.case import ACK_DATA, DATAGRAM, sent
from world import APPROVED, VETH
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.attach import Hooks, Method
from vxlane.netlink.socket import NetlinkSocket

OFFLOADS = ("tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation")
SEGMENT = 1300
PAYLOAD = bytes(number % 251 for number in range(9 * SEGMENT + 77))


@pytest.fixture(params=["on", "off"])
def offload(request: pytest.FixtureRequest, node: Node) -> Iterator[str]:
    """Whether the NIC takes a tunnel's super-packets whole."""

    def switch(state: str) -> None:
        words = [word for name in OFFLOADS for word in (name, state)]
        subprocess.run(["ethtool", "-K", "nic", *words], check=True, capture_output=True)

    node.chamber.run(switch, request.param)
    yield request.param
    node.chamber.run(switch, "on")


def on_the_wire(node: Node, frame: Frame) -> list[bytes]:
    """What leaves of a super-packet, up to the segment that ends as its payload does."""
    node.wire.drain()
    node.pod.send_super(super_packet(frame, SEGMENT))
    seen: list[bytes] = []
    deadline = time.monotonic() + 5
    while not (seen and seen[-1].endswith(PAYLOAD[-8:])):
        assert time.monotonic() < deadline, f"only {len(seen)} frames"
        time.sleep(0.002)
        seen += [one for one in node.wire.drain() if one[12:14] == b"\x08\x00"]
    return seen


@pytest.mark.parametrize(
    "frame",
    [
        sent(replace(ACK_DATA, payload=PAYLOAD), tos=ECT0),
        sent(replace(ACK_DATA, payload=PAYLOAD, options=bytes(12))),
        sent(replace(DATAGRAM, payload=PAYLOAD)),
    ],
    ids=["tcp", "tcp-options", "udp"],
)
def test_super_packet(
    node: Node, bench: Bench, netlink: NetlinkSocket, offload: str, frame: Frame
) -> None:
    """Past the kernel path leaves what leaves by it, whole or in ten segments."""
    kernel = on_the_wire(node, frame)
    hooks = Hooks(bench.pins, Method.AUTO, netlink)
    stand(bench.maps, replace(APPROVED, source_port=int.from_bytes(kernel[0][34:36], "big")))
    hooks.attach(Program.FROM_POD, VETH)
    with bench.counting() as moved:
        bypassed = on_the_wire(node, frame)
    hooks.detach_all()
    assert moved.packets == {(Program.FROM_POD, Verdict.ENCAPSULATED): 1}
    assert len(kernel) == (1 if offload == "on" else 10)
    assert [without_chance(one).hex() for one in bypassed] == [
        without_chance(one).hex() for one in kernel
    ]
