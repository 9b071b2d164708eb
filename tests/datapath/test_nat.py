# SPDX-License-Identifier: Apache-2.0
"""A translated flow by both ways: netfilter's own bytes first, then those of the bypass.

The rules are such as kube-proxy writes. A frame and its answer travel by the kernel path, once more
to be learned, and then past it.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import count
from typing import Literal

import pytest
from bench import Bench
from chamber import Port
from frames import ENCAPSULATION, TCP, UDP, Frame, unfinished, without_chance
from node import Node
from tables.case import only
from tables.from_nic import carried
from tables.nat import peer_sends, pod_sends
from test_differential import exchange
from world import (
    BRIDGE_MAC,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    NIC,
    NIC_MAC,
    OTHER_PEER,
    OTHER_REMOTE,
    PEER,
    POD,
    PORT,
    REMOTE,
    ROUTER_MAC,
    VETH,
    Approval,
    Tuple,
)
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict, Way
from vxlane.datapath.attach import Hooks, Method
from vxlane.netlink.socket import NetlinkSocket

Checksum = Literal["finished", "unfinished", "none"]
BACKENDS = {"peer": REMOTE, "link": OTHER_REMOTE, "neighbour": NEIGHBOUR.address}
WORLD = replace(only(), peers=(PEER, replace(OTHER_PEER, way=Way.DIRECT)))
PORTS = count(42000)


@dataclass(frozen=True, slots=True)
class Service:
    """An address, who is behind it, and whether the node puts itself in between."""

    address: IPv4Address
    backend: str
    is_masqueraded: bool


SERVICES = [
    Service(IPv4Address(f"10.43.1.{number}"), backend, is_masqueraded)
    for number, (backend, is_masqueraded) in enumerate(
        (backend, is_masqueraded) for backend in BACKENDS for is_masqueraded in (False, True)
    )
]


@pytest.fixture(autouse=True)
def rules(node: Node) -> Iterator[None]:
    """Every Service, by rules as kube-proxy writes them; windows as the agent sets them."""
    targets = "".join(
        f" ip daddr {one.address} {protocol} dport 443 dnat to {BACKENDS[one.backend]}:8443;"
        for one in SERVICES
        for protocol in ("tcp", "udp")
    )
    sources = "".join(
        f" ct original ip daddr {one.address} masquerade;" for one in SERVICES if one.is_masqueraded
    )
    text = (
        f"table ip nat {{ chain in {{ type nat hook prerouting priority dstnat;{targets} }};"
        f" chain out {{ type nat hook postrouting priority srcnat;{sources} }}; }}"
    )
    node.chamber.run(subprocess.run, ["nft", text], check=True)
    before = node.chamber.run(exchange, {"netfilter/nf_conntrack_tcp_be_liberal": "1"})
    yield
    node.chamber.run(exchange, before)
    node.chamber.run(subprocess.run, ["nft", "delete table ip nat"], check=True)


@contextmanager
def vxlane(bench: Bench, netlink: NetlinkSocket) -> Iterator[None]:
    """All programs on their hooks."""
    hooks = Hooks(bench.pins, Method.AUTO, netlink)
    for program, ifindex in (
        *((program, veth) for program in (Program.FROM_POD, Program.TO_POD) for veth in VETHS),
        (Program.FROM_NIC, NIC),
        (Program.TO_NIC, NIC),
    ):
        hooks.attach(program, ifindex)
    try:
        yield
    finally:
        hooks.detach_all()


VETHS = (VETH, NEIGHBOUR_VETH)


def carry(source: Port, frame: Frame, target: Port, checksum: Checksum) -> bytes:
    """Send a frame, answer what comes of it elsewhere."""
    made = bytes(frame)
    target.drain()
    if checksum == "unfinished":
        source.send_super(unfinished(made))
    else:
        source.send(made)
    return target.receive(lambda seen: seen.endswith(made[-8:]) and seen[12:14] == b"\x08\x00")


def is_tunnel(frame: bytes) -> bool:
    """Whether a frame is UDP to the VXLAN port."""
    return frame[23] == UDP and frame[36:38] == PORT.to_bytes(2, "big")


def tuple_of(frame: bytes) -> Tuple:
    """The flow of a frame, as its sender has it."""
    ip = ENCAPSULATION if is_tunnel(frame) else 0
    addresses = (IPv4Address(frame[ip + at : ip + at + 4]) for at in (26, 30))
    return Tuple(*addresses, *struct.unpack_from("!HH", frame, ip + 34), frame[ip + 23])


def answer_to(flow: Approval, service: Service, **changes: int) -> Frame:
    """What the backend sends: in a tunnel, over the link, or to its neighbour."""
    made = peer_sends(flow, **changes)
    if service.backend == "peer":
        return carried(made)
    if service.backend == "link":
        return replace(made, source_mac=ROUTER_MAC, dest_mac=NIC_MAC)
    # To the node where that has put itself in between, else straight to the pod.
    target = BRIDGE_MAC if service.is_masqueraded else POD.mac
    return replace(made, source_mac=NEIGHBOUR.mac, dest_mac=target)


def plain(frame: bytes) -> str:
    """A frame without what is chosen by chance."""
    return (without_chance(frame) if is_tunnel(frame) else frame).hex(" ")


@pytest.mark.parametrize(
    ("protocol", "checksum"),
    [(TCP, "finished"), (TCP, "unfinished"), (UDP, "finished"), (UDP, "unfinished"), (UDP, "none")],
)
@pytest.mark.parametrize("service", SERVICES, ids=str)
def test_translation_is_netfilters(
    node: Node,
    bench: Bench,
    netlink: NetlinkSocket,
    service: Service,
    protocol: int,
    checksum: Checksum,
) -> None:
    """What leaves for a Service, and what the pod gets of it, are netfilter's frames."""
    changes = {"checksum": 0} if checksum == "none" else {}
    flow = Approval(tuple=Tuple(POD.address, service.address, next(PORTS), 443, protocol))
    frame = pod_sends(flow, **changes)
    far = node.neighbour if service.backend == "neighbour" else node.wire
    kernel_out = carry(node.pod, frame, far, checksum)
    flow = replace(flow, behind=tuple_of(kernel_out))
    answer = answer_to(flow, service, **changes)
    kernel_in = carry(far, answer, node.pod, checksum)
    assert tuple_of(kernel_in).local == service.address
    stand(bench.maps, WORLD)
    with vxlane(bench, netlink):
        for _ in range(2):
            carry(node.pod, frame, far, checksum)
            carry(far, answer, node.pod, checksum)
        with bench.counting() as moved:
            bypassed_out = carry(node.pod, frame, far, checksum)
            bypassed_in = carry(far, answer, node.pod, checksum)
    entrance = Program.FROM_POD if service.backend == "neighbour" else Program.FROM_NIC
    both = 2 if entrance is Program.FROM_POD else 1
    assert moved.packets == {
        (Program.FROM_POD, Verdict.NAT): both,
        (entrance, Verdict.NAT): both,
    }
    assert plain(bypassed_out) == plain(kernel_out)
    assert plain(bypassed_in) == plain(kernel_in)
