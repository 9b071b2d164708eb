# SPDX-License-Identifier: Apache-2.0
"""The same frame by both ways: the kernel's own path first, then past it, compared byte by byte.

Real frames through real devices: a pod's end of a veth, cni0, routing, flannel.1, a NIC.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from bench import Bench
from chamber import Port
from frames import CE, ECHO_REPLY, ECT0, ECT1, Frame, Icmp, Tcp, Udp, without_chance
from machinecan import BOTH
from node import Node
from tables.case import ACK_DATA, DATAGRAM, PING, handed_over, only, sent
from tables.direct import plain
from tables.from_nic import ANSWER, PONG, RESPONSE, carried, inner
from tables.from_pod import FULL, LOCAL_DATA, LOCAL_DATAGRAM
from world import (
    APPROVED,
    NIC,
    OTHER_PEER,
    OTHER_REMOTE,
    PEER,
    PING_FLOW,
    PORT,
    TCP_FLOW,
    UDP_FLOW,
    VETH,
    Approval,
    World,
)
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict, Way
from vxlane.datapath.attach import Hooks
from vxlane.netlink.socket import NetlinkSocket


@pytest.fixture(params=BOTH)
def hooks(request: pytest.FixtureRequest, node: Node, bench: Bench) -> Iterator[Hooks]:
    """Attaches; nothing is attached at the beginning and at the end."""
    netlink = node.chamber.run(NetlinkSocket)
    made = Hooks(bench.pins, request.param, netlink)
    yield made
    node.chamber.run(made.detach_all)
    node.chamber.run(netlink.close)


@contextmanager
def bypass(
    bench: Bench, hooks: Hooks, world: World, place: tuple[Program, int], verdict: Verdict
) -> Iterator[None]:
    """With a program on its hook; the one packet sent inside moves `verdict`."""
    stand(bench.maps, world)
    hooks.attach(*place)
    with bench.counting() as moved:
        yield
    hooks.detach(*place)
    assert moved.packets == {(place[0], verdict): 1}


def is_vxlan(frame: bytes) -> bool:
    """Whether a frame is UDP to the VXLAN port."""
    return frame[23] == 17 and frame[36:38] == PORT.to_bytes(2, "big")


def carry(source: Port, frame: Frame, target: Port) -> bytes:
    """Send a frame, answer what comes of it elsewhere: a tunnel's packet or the payload."""
    target.drain()
    source.send(bytes(frame))
    tail = bytes(frame)[-8:]
    return target.receive(lambda seen: seen.endswith(tail) and seen[12:14] == b"\x08\x00")


SENT = {
    "tcp": sent(ACK_DATA),
    "tcp-options": sent(replace(ACK_DATA, options=bytes(12))),
    "udp": sent(DATAGRAM),
    "udp-full": sent(FULL),
    "echo": sent(PING),
    "echo-reply": sent(Icmp(kind=ECHO_REPLY, identifier=78, payload=b"reply to you")),
    "fragmentable": sent(DATAGRAM, fragment=0),
    "ttl-2": sent(DATAGRAM, ttl=2),
    "ttl-255": sent(DATAGRAM, ttl=255),
    "dscp": sent(DATAGRAM, tos=0xB8),
    "ect0": sent(DATAGRAM, tos=ECT0),
    "ect1": sent(DATAGRAM, tos=0xB8 | ECT1),
    "ce": sent(DATAGRAM, tos=CE),
}


@pytest.mark.parametrize("frame", SENT.values(), ids=SENT)
def test_encapsulation_is_the_kernels(node: Node, bench: Bench, hooks: Hooks, frame: Frame) -> None:
    """What leaves for a peer is, outer Ethernet header and source port included, flannel.1's."""
    kernel = carry(node.pod, frame, node.wire)
    assert is_vxlan(kernel)
    world = replace(APPROVED, source_port=int.from_bytes(kernel[34:36], "big"))
    with bypass(bench, hooks, world, (Program.FROM_POD, VETH), Verdict.ENCAPSULATED):
        bypassed = carry(node.pod, frame, node.wire)
    assert without_chance(bypassed).hex(" ") == without_chance(kernel).hex(" ")
    assert bypassed[40:42] == bytes(2)


RECEIVED = {
    "tcp": carried(inner(RESPONSE)),
    "udp": carried(inner(ANSWER)),
    "udp-full": carried(inner(replace(FULL, source=53, dest=40001))),
    "echo-reply": carried(inner(PONG)),
    "echo": carried(inner(Icmp(identifier=78, payload=b"request to you"))),
    "ttl-2": carried(inner(ANSWER, ttl=2)),
    "dscp": carried(inner(ANSWER, tos=0xB8), tos=0x28),
    "ect0": carried(inner(ANSWER, tos=ECT0), tos=ECT0),
    "ce-outside": carried(inner(ANSWER, tos=0xB8 | ECT0), tos=CE),
    "ce-outside-ect1": carried(inner(ANSWER, tos=ECT1), tos=CE),
    "ce-inside": carried(inner(ANSWER, tos=CE), tos=ECT0),
    "ect0-outside-ect1": carried(inner(ANSWER, tos=ECT1), tos=ECT0),
}


@pytest.mark.parametrize("frame", RECEIVED.values(), ids=RECEIVED)
def test_decapsulation_is_the_kernels(node: Node, bench: Bench, hooks: Hooks, frame: Frame) -> None:
    """What a pod gets from the tunnel is what it gets by flannel.1, cni0 and its veth."""
    kernel = carry(node.wire, frame, node.pod)
    with bypass(bench, hooks, APPROVED, (Program.FROM_NIC, NIC), Verdict.DECAPSULATED):
        bypassed = carry(node.wire, frame, node.pod)
    assert bypassed.hex(" ") == kernel.hex(" ")


@pytest.mark.parametrize(
    "frame",
    [handed_over(LOCAL_DATA), handed_over(LOCAL_DATAGRAM, tos=CE, ttl=1)],
    ids=["tcp", "udp"],
)
def test_switching_is_the_bridges(node: Node, bench: Bench, hooks: Hooks, frame: Frame) -> None:
    """What a pod gets from a pod of its node is what the bridge hands over."""
    kernel = carry(node.pod, frame, node.neighbour)
    with bypass(bench, hooks, APPROVED, (Program.FROM_POD, VETH), Verdict.SWITCHED):
        bypassed = carry(node.pod, frame, node.neighbour)
    assert bypassed.hex(" ") == kernel.hex(" ")


# OTHER_PEER as the agent enters a peer that needs no tunnel.
ON_LINK = replace(
    only(
        *(
            Approval(tuple=replace(flow, remote=OTHER_REMOTE))
            for flow in (TCP_FLOW, UDP_FLOW, PING_FLOW)
        )
    ),
    peers=(PEER, replace(OTHER_PEER, way=Way.DIRECT)),
)


@pytest.mark.parametrize("transport", [ACK_DATA, DATAGRAM, PING], ids=["tcp", "udp", "echo"])
def test_routing_out_is_the_kernels(
    node: Node, bench: Bench, hooks: Hooks, transport: Tcp | Udp | Icmp
) -> None:
    """What leaves for a peer on our link is what the kernel forwards."""
    frame = sent(transport, destination=OTHER_REMOTE, tos=0xB8 | ECT1)
    kernel = carry(node.pod, frame, node.wire)
    with bypass(bench, hooks, ON_LINK, (Program.FROM_POD, VETH), Verdict.ROUTED):
        bypassed = carry(node.pod, frame, node.wire)
    assert not is_vxlan(bypassed)
    assert bypassed.hex(" ") == kernel.hex(" ")


@pytest.mark.parametrize("transport", [RESPONSE, ANSWER, PONG], ids=["tcp", "udp", "echo"])
def test_routing_in_is_the_kernels(
    node: Node, bench: Bench, hooks: Hooks, transport: Tcp | Udp | Icmp
) -> None:
    """What a pod gets from a peer on our link is what the kernel forwards."""
    frame = plain(transport, source=OTHER_REMOTE, tos=0xB8 | CE)
    kernel = carry(node.wire, frame, node.pod)
    with bypass(bench, hooks, ON_LINK, (Program.FROM_NIC, NIC), Verdict.ROUTED):
        bypassed = carry(node.wire, frame, node.pod)
    assert bypassed.hex(" ") == kernel.hex(" ")
