# SPDX-License-Identifier: Apache-2.0
"""Wire: the same frames by the kernel path and by the bypass, and what arrived where.

A probe is a list of frames put in at one place. It runs twice, with the programs standing aside
and with them at work, each time after the flow that it belongs to was approved; what all places
saw must be the same bytes, and `Outcome.counted` holds what the programs made of it.
"""

from __future__ import annotations

import contextlib
import json
import select
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

from frames import ETHERNET, IP, Frame, Udp, checksum, vxlan
from taps import Tap

from vxlane.lab.traffic import Ends
from vxlane.lab.underlay import NIC

SENDER, RECEIVER = "node1-pod1", "node2-pod1"
NEIGHBOUR = "node1-pod2"
WIRE = "wire-"
"""A place named wire-node1 is the switch's end of that node's cable."""
AT_RECEIVER = f"{WIRE}node2"

OPEN_PORT = 7000
"""Every pod listens there for datagrams, and never reads one."""

_PORT = 8472
_PORTS = iter(range(20000, 60000))
"""For flows of their own: the shared lab remembers those of the file before."""
_QUIET_SECONDS = 0.05
_ICMP_ERRORS = (3, 4, 5, 11, 12)


@dataclass(slots=True)
class Outcome:
    """What a probe led to; frames by the place that saw them."""

    kernel: dict[str, list[bytes]] = field(default_factory=dict)
    bypass: dict[str, list[bytes]] = field(default_factory=dict)
    counted: list[str] = field(default_factory=list)
    """One "program verdict" per packet, sorted, of the bypass run."""

    @property
    def arrivals(self) -> dict[str, int]:
        """How many frames each place saw in the bypass run, places that saw none left out."""
        return {place: len(frames) for place, frames in self.bypass.items() if frames}


class Wire:
    """A lab with taps on all that can be seen of it; places go by their short names."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        prefix = f"{lab.lab.name}-"
        self.nodes = [node.name.removeprefix(prefix) for node in lab.lab.accelerated()]
        self.all_nodes = [node.name.removeprefix(prefix) for node in lab.lab.nodes]
        self.pods = [pod.name.removeprefix(prefix) for pod in lab.lab.pods]
        self._taps: dict[str, Tap] = {}

    def tap(self, place: str) -> Tap:
        """A pod's eth0, or the wire at a node: what the node sends, and a way to send to it."""
        if place not in self._taps:
            if place.startswith(WIRE):
                port = place.removeprefix(WIRE)
                self._taps[place] = Tap(self.lab.netns("switch"), port)
            else:
                self._taps[place] = Tap(self.lab.netns(place), NIC)
        return self._taps[place]

    def close(self) -> None:
        """Close the taps."""
        while self._taps:
            self._taps.popitem()[1].close()

    @contextlib.contextmanager
    def mtu(self, place: str, device: str, size: int) -> Iterator[None]:
        """Give a device another MTU inside the block."""
        before = self._link(place, device)["mtu"]
        self.lab.exec(place, "ip", "link", "set", device, "mtu", str(size))
        try:
            yield
        finally:
            self.lab.exec(place, "ip", "link", "set", device, "mtu", str(before))

    @contextlib.contextmanager
    def feature(self, place: str, device: str, name: str) -> Iterator[None]:
        """Have an offload that is off by default on inside the block."""
        self.lab.exec(place, "ethtool", "-K", device, name, "on")
        try:
            yield
        finally:
            self.lab.exec(place, "ethtool", "-K", device, name, "off")

    def mac(self, place: str, device: str = NIC) -> str:
        """The MAC of a device of a node or a pod."""
        return str(self._link(place, device)["address"])

    def _link(self, place: str, device: str) -> dict[str, Any]:
        shown = self.lab.exec(place, "ip", "-j", "link", "show", device).stdout
        link: dict[str, Any] = json.loads(shown)[0]
        return link

    def ends(self, source: str, target: str) -> Ends:
        """Two pods as the ends of a transfer."""
        lab = self.lab
        return Ends(lab.netns(source), lab.netns(target), lab.address(target))

    def fresh_flow(self, payload: bytes = b"") -> Udp:
        """A datagram of a flow that was never seen before, to a port where somebody listens."""
        return Udp(source=next(_PORTS), dest=OPEN_PORT, payload=payload)

    def from_pod(self, transport: Any, *, source: str = SENDER, target: str = RECEIVER) -> Frame:
        """A packet as a pod sends it to another: by the gateway, unless they share the node."""
        node = source.partition("-")[0]
        is_neighbour = node == target.partition("-")[0]
        return Frame(
            source_mac=self.lab.pod(source).mac,
            dest_mac=self.lab.pod(target).mac if is_neighbour else self.mac(node, "cni0"),
            source=IPv4Address(self.lab.address(source)),
            destination=IPv4Address(self.lab.address(target)),
            transport=transport,
        )

    def from_peer(self, inner: Frame, *, source: str = "node1", target: str = "node2") -> Frame:
        """The frame of a packet of a pod on `source` as it reaches `target` by the wire."""
        carried = self.carried(inner, source=source, target=target)
        return self.tunnel(vxlan(bytes(carried)), source=source, target=target)

    def carried(self, packet: Frame, *, source: str = "node1", target: str = "node2") -> Frame:
        """A pod's packet as it stands inside a tunnel."""
        return replace(
            packet,
            source_mac=self.lab.node(source).vtep_mac,
            dest_mac=self.lab.node(target).vtep_mac,
            ttl=packet.ttl - 1,
        )

    def tunnel(self, payload: bytes, *, source: str = "node1", target: str = "node2") -> Frame:
        """A datagram to the VXLAN port of `target`."""
        return Frame(
            source_mac=self.mac(source),
            dest_mac=self.mac(target),
            source=IPv4Address(self.lab.address(source)),
            destination=IPv4Address(self.lab.address(target)),
            transport=Udp(source=40000, dest=_PORT, payload=payload, checksum=0),
            fragment=0,
        )

    def set_bypass(self, *, enabled: bool) -> None:
        """Have the agents of all nodes let their programs work or stand aside."""
        for node in self.nodes:
            self.lab.ask(node, op="bypass", enabled=enabled)

    def compare(
        self, frames: Iterable[Frame | bytes], *, at: str, approve: Frame, seen_at: Iterable[str]
    ) -> Outcome:
        """Put `frames` in `at` a place by both ways, each time after `approve`'s flow was approved.

        Asserts that `approve` is bypassed. What `seen_at` saw is without what may differ: see
        `settled`.
        """
        shots = [bytes(frame) for frame in frames]
        taps = {place: self.tap(place) for place in seen_at}
        outcome = Outcome()
        self.set_bypass(enabled=False)
        try:
            self._fire(at, [bytes(approve)] * 2, taps)
            outcome.kernel = self._fire(at, shots, taps)
        finally:
            self.set_bypass(enabled=True)
        self.approve(approve, at=at)
        with self.counting() as outcome.counted:
            outcome.bypass = self._fire(at, shots, taps)
        return outcome

    def approve(self, frame: Frame, *, at: str) -> None:
        """Send a packet until its flow is bypassed on its whole way; it goes one way only."""
        taps = {place: self.tap(place) for place in (NEIGHBOUR, RECEIVER)}
        self._fire(at, [bytes(frame)], taps)
        with self.counting() as counted:
            self._fire(at, [bytes(frame)], taps)
        if at.startswith(WIRE):
            way = ["from_nic decapsulated"]
        elif frame.destination in self.lab.node(at.partition("-")[0]).pod_cidr:
            way = ["from_pod switched"]
        else:
            way = ["from_nic decapsulated", "from_pod encapsulated"]
        assert counted == way, f"the flow to compare with was not bypassed: {counted}"

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[str]]:
        """One "program verdict" for each packet that all nodes count inside the block, sorted."""
        counted: list[str] = []
        with self.lab.verdicts(*self.nodes) as moved:
            yield counted
        for (program, verdict), packets in sorted(moved.items()):
            counted += [f"{program} {verdict}"] * packets

    def watch(self, places: Iterable[str], action: Callable[[], object]) -> dict[str, list[bytes]]:
        """What `places` saw from the beginning of `action` until all was quiet."""
        taps = {place: self.tap(place) for place in places}
        for tap in taps.values():
            tap.drain()
        action()
        return _collect(taps)

    def send(self, frames: Iterable[Frame | bytes], *, at: str) -> None:
        """Put frames in at a place."""
        for frame in frames:
            self.tap(at).send(bytes(frame))

    def _fire(self, at: str, shots: list[bytes], taps: dict[str, Tap]) -> dict[str, list[bytes]]:
        return self.watch(taps, lambda: self.send(shots, at=at))


def _collect(taps: dict[str, Tap]) -> dict[str, list[bytes]]:
    """All frames until none came for a while, in what may be compared."""
    seen: dict[str, list[bytes]] = {place: [] for place in taps}
    quiet_at = time.monotonic() + _QUIET_SECONDS
    while (left := quiet_at - time.monotonic()) > 0:
        ready, _, _ = select.select(list(taps.values()), [], [], left)
        for place, tap in taps.items():
            if tap in ready:
                seen[place] += map(settled, tap.drain())
                quiet_at = time.monotonic() + _QUIET_SECONDS
    return seen


def settled(frame: bytes) -> bytes:
    """A frame without what the kernel chooses anew each time.

    That is the IP identification of packets that the nodes make, tunnels and ICMP errors, and of
    tunnels the UDP checksum, which is vxlane's to leave out; so that nothing else may differ, IP
    checksums are checked here before they are cleared with the identification.
    """
    if not _is_plain_ip(frame) or _is_fragment(frame):
        return frame
    transport = ETHERNET + IP
    protocol, kind = frame[ETHERNET + 9], frame[transport]
    if protocol == 1 and kind in _ICMP_ERRORS:
        return _without_identification(frame)
    if protocol == 17 and frame[transport + 2 : transport + 4] == _PORT.to_bytes(2, "big"):
        outer = _without_identification(frame[: transport + 6] + bytes(2))
        inner = transport + 8 + 8
        return outer + frame[transport + 8 : inner] + settled(frame[inner:])
    return frame


def _is_plain_ip(frame: bytes) -> bool:
    return len(frame) >= ETHERNET + IP + 8 and frame[12:15] == b"\x08\x00\x45"


def _is_fragment(frame: bytes) -> bool:
    return bool(int.from_bytes(frame[ETHERNET + 6 : ETHERNET + 8], "big") & 0x3FFF)


def _without_identification(frame: bytes) -> bytes:
    header = frame[ETHERNET : ETHERNET + IP]
    assert checksum(header) == 0, f"IP checksum is wrong: {frame.hex()}"
    cleared = header[:4] + bytes(2) + header[6:10] + bytes(2) + header[12:]
    return frame[:ETHERNET] + cleared + frame[ETHERNET + IP :]
