# SPDX-License-Identifier: Apache-2.0
"""One-way datagrams from a pod to a pod of another node, and every frame that crossed the wire.

One way, since that is the hardest to undo: no answer is missed when the way out is another than it
should be.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from taps import Tap, socket_in

PORT = 7300
COUNT = 50
SENDER, RECEIVER = "node1-pod1", "node2-pod1"
_ports = itertools.count(20000)
_SETTLE = 0.3
"""Seconds after the last datagram in which it may arrive."""


@dataclass(slots=True)
class Outcome:
    """What became of one flow; equal outcomes can't be told apart from outside."""

    arrived: int = 0
    clear: Counter[tuple[str, str, int, int, int]] = field(default_factory=Counter)
    """VXLAN frames of the flow on the wire, by outer source, destination, TOS, TTL and source
    port."""
    macs: set[bytes] = field(default_factory=set)
    """Their outer source MACs."""
    finished: int = 0
    """How many of them have a right inner UDP checksum: the others left it to the NIC."""
    other: int = 0
    """Frames of other protocols between the nodes: ESP."""


class Flow:
    """One flow of the lab, from SENDER to RECEIVER."""

    def __init__(self, lab: Any, tap: Tap, port: int) -> None:
        self._tap = tap
        self._port = port
        self._target = (lab.address(RECEIVER), PORT)
        self._from = socket_in(lab.netns(SENDER), socket.SOCK_DGRAM)
        self._from.bind(("0.0.0.0", port))
        self._to = socket_in(lab.netns(RECEIVER), socket.SOCK_DGRAM)
        self._to.bind(("0.0.0.0", PORT))
        os.set_blocking(self._to.fileno(), False)

    def close(self) -> None:
        """Close both ends."""
        self._from.close()
        self._to.close()

    def send(self, count: int = COUNT) -> Outcome:
        """Send datagrams one by one, each when the last one has arrived or a little later."""
        outcome = Outcome()
        self._tap.drain()
        for number in range(count):
            self._from.sendto(struct.pack("!I", number) + bytes(60), self._target)
            outcome.arrived += self._arrivals(0.02)
        outcome.arrived += self._arrivals(_SETTLE if outcome.arrived < count else 0.0)
        for frame in self._tap.drain():
            self._note(outcome, frame)
        return outcome

    def _arrivals(self, seconds: float) -> int:
        """How many arrive until there is one, or for so long."""
        select.select([self._to], [], [], seconds)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self._to.recv(2048):
                count += 1
        return count

    def _note(self, outcome: Outcome, frame: bytes) -> None:
        if frame[12:14] != b"\x08\x00":
            return
        if frame[23] == socket.IPPROTO_ESP:
            outcome.other += 1
        is_tunnel = frame[23] == socket.IPPROTO_UDP and frame[36:38] == struct.pack("!H", 8472)
        if is_tunnel and frame[84:86] == struct.pack("!H", self._port):
            source, target = (socket.inet_ntoa(frame[at : at + 4]) for at in (26, 30))
            port = int.from_bytes(frame[34:36], "big")
            outcome.clear[source, target, frame[15], frame[22], port] += 1
            outcome.macs.add(frame[6:12])
            outcome.finished += is_right(frame[64:])


def is_right(packet: bytes) -> bool:
    """Whether the checksum of the UDP datagram in an IPv4 packet is right (RFC 768)."""
    pseudo = packet[12:20] + struct.pack("!HH", socket.IPPROTO_UDP, len(packet) - 20)
    data = pseudo + packet[20:] + bytes(len(packet) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF == 0


def fresh_port() -> int:
    """A source port that no test has used: a flow without a record or conntrack entry."""
    return next(_ports)


@contextlib.contextmanager
def flow(lab: Any, port: int) -> Iterator[Flow]:
    """A flow from a source port; its frames are seen where they reach the other node's NIC."""
    tap = Tap(lab.netns("node2"), "eth0")
    made = Flow(lab, tap, port)
    try:
        yield made
    finally:
        made.close()
        tap.close()


@contextlib.contextmanager
def kernel_path(lab: Any) -> Iterator[None]:
    """Both nodes leave every packet to the kernel path inside."""
    for node in ("node1", "node2"):
        lab.ask(node, op="bypass", enabled=False)
    try:
        yield
    finally:
        for node in ("node1", "node2"):
            lab.ask(node, op="bypass", enabled=True)


def by_both(lab: Any, port: int) -> tuple[Outcome, Outcome]:
    """The same flow by the kernel path alone, then with the bypass."""
    with kernel_path(lab), flow(lab, port) as sent:
        kernel = sent.send()
    with flow(lab, port) as sent:
        return kernel, sent.send()
