# SPDX-License-Identifier: Apache-2.0
"""ICMP echo from a raw socket, and the largest packet that an echo comes back from.

A raw socket needs no `ping` on the node. The form of messages is RFC 792's. Imports no other
module of vxlane.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address

IPV4_HEADER = 20
_ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_REQUEST, _REPLY = 8, 0

SMALLEST_PATH = 576
"""Bytes that every IPv4 host takes in (RFC 791)."""

# linux/in.h; Python's socket module has none of them.
_IP_MTU_DISCOVER, _PMTUDISC_PROBE, _IP_MTU = 10, 3, 14


class Echo:
    """Sends echo requests to `address` and waits for replies.

    Packets carry "don't fragment", and what the kernel has heard of the path's MTU is not heeded
    (IP_PMTUDISC_PROBE), so that every size is really tried.
    """

    def __init__(self, raw: socket.socket, address: IPv4Address, identifier: int) -> None:
        """`raw` is an ICMP socket of the namespace to send from; see `raw_socket`."""
        self.identifier = identifier
        self._socket = raw
        self._sequence = 0
        self._address = (str(address), 0)
        raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)

    @property
    def mtu(self) -> int:
        """What this end takes for the path's MTU: the pod's interface's, or the route's. OSError:
        there is no route.
        """
        self._socket.connect(self._address)
        return int(self._socket.getsockopt(socket.IPPROTO_IP, _IP_MTU))

    def answers(self, size: int, *, timeout: float) -> bool:
        """Whether an IP packet of `size` bytes is answered within `timeout` seconds."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        wanted = message(_REQUEST, self.identifier, self._sequence, size - IPV4_HEADER)
        try:
            self._socket.connect(self._address)
            self._socket.send(wanted)
            return self._heard(wanted, time.monotonic() + timeout)
        except OSError:
            return False  # no route, too big for the interface, or a router's ICMP error

    def _heard(self, request: bytes, deadline: float) -> bool:
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                packet = self._socket.recv(0x10000)
                if is_reply(packet[(packet[0] & 15) * 4 :], request):
                    return True
        return False


def raw_socket() -> socket.socket:
    """An ICMP socket of this thread's network namespace."""
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


def message(kind: int, identifier: int, sequence: int, size: int) -> bytes:
    """An ICMP echo message of `size` bytes."""
    data = bytes(number & 0xFF for number in range(size - _ECHO.size))
    head = _ECHO.pack(kind, 0, 0, identifier, sequence)
    return _ECHO.pack(kind, 0, checksum(head + data), identifier, sequence) + data


def is_reply(answer: bytes, request: bytes) -> bool:
    """Whether the ICMP message `answer` is the reply to `request`, with the same data."""
    if len(answer) != len(request) or answer[0] != _REPLY:
        return False
    return answer[4:] == request[4:]


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = octets + b"\0" * (len(octets) & 1)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def largest(answers: Callable[[int], bool], ceiling: int) -> int | None:
    """The largest size from `SMALLEST_PATH` to `ceiling` bytes that `answers`; None: none does.

    The ceiling is tried first: on a path that is in order it is the answer.
    """
    if answers(ceiling):
        return ceiling
    good, bad = SMALLEST_PATH, ceiling
    if ceiling <= good or not answers(good):
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if answers(middle) else (good, middle)
    return good
