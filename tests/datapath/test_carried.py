# SPDX-License-Identifier: Apache-2.0
"""What an skb carries beside its bytes is what the kernel path leaves on it, field by field.

A pod may look: a qdisc or program of its own, a socket that asks for it, a virtual machine's tap.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from bench import Bench
from frames import Frame, super_packet, unfinished
from looker import CSUM_LEVEL, FIELDS, Looker, dressed
from node import Node
from tables.case import DATAGRAM, handed_over, only, sent
from tables.from_nic import ANSWER, RESPONSE, carried, inner
from tables.from_pod import LOCAL_DATA
from test_wire import carry
from world import APPROVED, NIC, VETH
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.attach import Hooks, Method
from vxlane.datapath.syscall import TcxHook
from vxlane.netlink.socket import NetlinkSocket

Seen = dict[str, int]
Pair = tuple[Seen, Seen]
"""By the kernel path and past it."""

_SO_TIMESTAMPING, _RX_SOFTWARE, _SOFTWARE = 37, 1 << 3, 1 << 4
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
_TO_TAP = (
    "tc filter add dev pod parent ffff: protocol ip u32 match u32 0 0"
    " action mirred egress redirect dev kata"
)
_INTERACTIVE = 0x10
"""A TOS that forwarding makes a priority of."""
TIMES = {"tstamp", "tstamp_type"}
NOT_COMPARED = {
    # Past the kernel path the frame is still as it came from the pod. A NIC reads neither.
    "out": {"pkt_type", "ingress_ifindex", *TIMES},
    # bpf_skb_adjust_room() has the kernel count the segments again.
    "super": {"pkt_type", "ingress_ifindex", "gso_segs", *TIMES},
    # Without GRO at the NIC flannel.1's own GRO verifies a packet, and past it the pod does.
    "in": {CSUM_LEVEL, *TIMES},
    "local": TIMES,
}
"""Times are compared below."""


@pytest.fixture(scope="module")
def looker(_machine: None) -> Iterator[Looker]:
    """The program that looks."""
    with contextlib.closing(Looker()) as made:
        yield made


@contextlib.contextmanager
def looking(
    looker: Looker, node: Node, device: str, hook: TcxHook = TcxHook.INGRESS
) -> Iterator[None]:
    """Look at what passes a device of the pods' namespace."""
    place = looker.at(node.outside.run(socket.if_nametoindex, device), hook)
    node.outside.run(place.__enter__)
    try:
        yield
    finally:
        node.outside.run(place.__exit__, None, None, None)


@contextlib.contextmanager
def attached(bench: Bench, *places: tuple[Program, int]) -> Iterator[None]:
    """With programs on their hooks, by links: they run behind what is there."""
    with contextlib.closing(NetlinkSocket()) as netlink:
        hooks = Hooks(bench.pins, Method.TCX, netlink)
        for place in places:
            hooks.attach(*place)
        try:
            yield
        finally:
            hooks.detach_all()


def _leaving(bench: Bench, looker: Looker, send: Callable[[], object]) -> Pair:
    """Learned from the kernel path, and then bypassed; it came with a queue and a priority."""
    stand(bench.maps, only())
    places = (Program.FROM_POD, VETH), (Program.TO_NIC, NIC)
    with (
        dressed(VETH),
        attached(bench, *places),
        looker.at(NIC, TcxHook.EGRESS),
        bench.counting() as moved,
    ):
        send()
        kernel = looker.seen()
        send()
        bypassed = looker.seen()
    assert moved.packets[Program.FROM_POD, Verdict.ENCAPSULATED] == 1
    assert moved.packets[Program.TO_NIC, Verdict.LEARNED] == 1
    return kernel, bypassed


def _out(bench: Bench, node: Node, looker: Looker) -> Pair:
    frame = sent(DATAGRAM, tos=_INTERACTIVE)
    return _leaving(bench, looker, lambda: carry(node.pod, frame, node.wire))


def _super(bench: Bench, node: Node, looker: Looker) -> Pair:
    payload = bytes(number % 251 for number in range(4000))
    frame = super_packet(sent(replace(DATAGRAM, payload=payload)), 1300)

    def send() -> None:
        node.wire.drain()
        node.pod.send_super(frame)
        node.wire.receive(lambda seen: seen.endswith(payload[-8:]))

    return _leaving(bench, looker, send)


def _in(bench: Bench, node: Node, looker: Looker) -> Pair:
    return entering(bench, node, looker, carried(inner(ANSWER)))


def entering(bench: Bench, node: Node, looker: Looker, frame: Frame) -> Pair:
    """From the NIC into the pod."""
    with looking(looker, node, "pod"):
        place, due = (Program.FROM_NIC, NIC), Verdict.DECAPSULATED
        return _by_both(bench, looker, place, due, lambda: carry(node.wire, frame, node.pod))


def _local(bench: Bench, node: Node, looker: Looker) -> Pair:
    frame = handed_over(LOCAL_DATA)
    with looking(looker, node, "neighbour"):
        place, due = (Program.FROM_POD, VETH), Verdict.SWITCHED
        return _by_both(bench, looker, place, due, lambda: carry(node.pod, frame, node.neighbour))


def _by_both(
    bench: Bench,
    looker: Looker,
    place: tuple[Program, int],
    due: Verdict,
    send: Callable[[], object],
) -> Pair:
    """By the kernel path, and by a program; it came with a queue, a priority and more."""
    program, ifindex = place
    stand(bench.maps, APPROVED)
    with dressed(ifindex):
        send()
        kernel = looker.seen()
        with attached(bench, place), bench.counting() as moved:
            send()
        bypassed = looker.seen()
    assert moved.packets == {(program, due): 1}
    return kernel, bypassed


WAYS = {"out": _out, "super": _super, "in": _in, "local": _local}
COMPARED = [
    (way, field)
    for way in WAYS
    for field in (*FIELDS, CSUM_LEVEL)
    if field not in NOT_COMPARED[way]
]


@pytest.fixture(scope="module")
def pairs(node: Node, bench: Bench, looker: Looker) -> dict[str, Pair]:
    """What packets carried, by way."""
    return {way: node.chamber.run(walk, bench, node, looker) for way, walk in WAYS.items()}


@pytest.mark.parametrize(("way", "field"), COMPARED)
def test_field(pairs: dict[str, Pair], way: str, field: str) -> None:
    """A field of the skb has the value that the kernel path leaves in it."""
    kernel, bypassed = pairs[way]
    assert bypassed[field] == kernel[field]


def test_the_fields_were_set(pairs: dict[str, Pair]) -> None:
    """The packets that were compared had values to lose, and to keep."""
    kernel, _ = pairs["out"]
    assert (kernel["priority"], kernel["queue_mapping"]) == (6, 0)
    assert kernel["hash"]
    assert pairs["super"][0]["gso_size"] == 1300
    assert pairs["in"][0]["hash"]


@pytest.fixture
def coalescing(node: Node) -> Iterator[None]:
    """GRO at the NIC: it verifies the checksums of what it lets through."""

    def switch(state: str, other: str) -> None:
        for run, device, feature, to in (
            (node.chamber.run, "nic", "gro", state),
            # A veth's GRO takes only what comes from a device that does not segment.
            (node.outside.run, "wire", "tso", other),
        ):
            run(subprocess.run, ["ethtool", "-K", device, feature, to], check=True)

    switch("on", "off")
    yield
    switch("off", "on")


@pytest.mark.usefixtures("coalescing")
@pytest.mark.parametrize("transport", [ANSWER, RESPONSE], ids=["udp", "tcp"])
def test_verified_is_verified(node: Node, bench: Bench, looker: Looker, transport: object) -> None:
    """What was verified of the inner packet at the NIC is not verified again in the pod."""
    kernel, bypassed = entering(bench, node, looker, carried(inner(transport)))
    assert bypassed[CSUM_LEVEL] == kernel[CSUM_LEVEL] == 0


@contextlib.contextmanager
def timing(node: Node) -> Iterator[socket.socket]:
    """A pod's socket that asks for times of receipt: from then on the kernel takes them."""
    with node.outside.run(_timing_socket) as asking:
        yield asking


def _timing_socket() -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    made.bind(("pod", 0x0800))
    made.settimeout(5)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
    return made


def told(asking: socket.socket, send: Callable[[], object]) -> tuple[float, float, float]:
    """When a packet was sent, when its receiver is told that it came, and when it was read."""
    before = time.clock_gettime(time.CLOCK_REALTIME)
    send()
    _, ancillary, _, _ = asking.recvmsg(2048, 256)
    (data,) = (data for _, kind, data in ancillary if kind == _SO_TIMESTAMPING)
    seconds, nanoseconds = struct.unpack_from("=qq", data)
    return before, seconds + nanoseconds / 1e9, time.clock_gettime(time.CLOCK_REALTIME)


def test_time_of_receipt(node: Node, bench: Bench, looker: Looker) -> None:
    """A socket with SO_TIMESTAMPING is told when its packet came, by the clock of either path."""
    frame = bytes(carried(inner(ANSWER)))
    stand(bench.maps, APPROVED)
    with timing(node) as asking, looking(looker, node, "pod"):
        times = [told(asking, lambda: node.wire.send(frame))]
        kernel = looker.seen()
        with attached(bench, (Program.FROM_NIC, NIC)), bench.counting() as moved:
            times.append(told(asking, lambda: node.wire.send(frame)))
        bypassed = looker.seen()
    assert moved.packets == {(Program.FROM_NIC, Verdict.DECAPSULATED): 1}
    assert all(before <= came <= after for before, came, after in times)
    assert kernel["tstamp_type"] == bypassed["tstamp_type"]


@pytest.fixture
def tap(node: Node) -> Iterator[int]:
    """A virtual machine in the pod, as Kata wires it: all that comes in goes to its tap."""
    made = node.outside.run(_make_tap)
    yield made
    node.outside.run(subprocess.run, ["tc", "qdisc", "delete", "dev", "pod", "ingress"], check=True)
    os.close(made)


def _make_tap() -> int:
    made = os.open("/dev/net/tun", os.O_RDWR)
    request = struct.pack("=16sH22x", b"kata", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
    fcntl.ioctl(made, _TUNSETIFF, request)
    for command in (
        "ip link set kata up",
        "tc qdisc add dev pod ingress",
        _TO_TAP,
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    return made


def test_a_virtual_machine_gets_it(node: Node, bench: Bench, looker: Looker, tap: int) -> None:
    """Bytes and checksum's state are the kernel path's at a VM's tap, and fq would send it now.

    fq holds back what carries a time, and drops what carries one of another clock.
    """
    frame = unfinished(bytes(carried(inner(ANSWER))))
    stand(bench.maps, APPROVED)

    def through() -> tuple[str, int]:
        node.wire.send_super(frame)
        seen = os.read(tap, 2048)
        while seen[22:24] != b"\x08\x00":
            seen = os.read(tap, 2048)
        return seen.hex(" "), looker.seen()["tstamp"]

    with timing(node), looking(looker, node, "kata", TcxHook.EGRESS):
        kernel = through()
        with attached(bench, (Program.FROM_NIC, NIC)), bench.counting() as moved:
            bypassed = through()
    assert moved.packets == {(Program.FROM_NIC, Verdict.DECAPSULATED): 1}
    assert bypassed == kernel
    assert kernel[1] == 0
