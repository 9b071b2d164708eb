# SPDX-License-Identifier: Apache-2.0
"""Data from one pod to another, compared by digest: what was sent is what arrived, and in time.

Both ends are sockets of this process, made in the pods' namespaces.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from taps import socket_in

from vxlane.lab.traffic import Ends

STALL_SECONDS = 5.0
"""A transfer that brings nothing for so long has failed."""

_GREETINGS = 3
"""Rounds of one byte each way, after which both halves of a connection are approved."""

_CHUNK = 1 << 20
_BUFFER = 32 << 20
_SO_RCVBUFFORCE, _SO_NO_CHECK = 33, 11
_SOL_UDP, _UDP_SEGMENT = 17, 103
_DATAGRAM_SECONDS = 0.3
_BODY = random.Random(8472).randbytes(2 * _CHUNK)


@dataclass(frozen=True, slots=True)
class Received:
    """What came out of a TCP connection; the longest wait for data is in seconds."""

    size: int
    digest: str
    longest_wait: float


def _chunks(size: int) -> Iterator[memoryview]:
    """`size` bytes in which no two megabytes are alike."""
    body = memoryview(_BODY)
    for number, at in enumerate(range(0, size, _CHUNK)):
        start = number * 4099 % _CHUNK
        yield body[start : start + min(_CHUNK, size - at)]


def tcp(
    ends: Ends, size: int, *, port: int = 0, congestion: str = "cubic", back: bool = False
) -> float:
    """Send `size` bytes over one connection and return the receiver's longest wait, seconds.

    Asserts that the same bytes came out. `port` is where the target listens, 0: anywhere. `back`:
    the target sends them.
    """
    with socket_in(ends.target, socket.SOCK_STREAM) as listener, ThreadPoolExecutor(1) as thread:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
        listener.settimeout(STALL_SECONDS)
        accepting = thread.submit(_accept, listener)
        with socket_in(ends.source, socket.SOCK_STREAM) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
            connection.settimeout(STALL_SECONDS)
            connection.connect((ends.address, listener.getsockname()[1]))
            for _ in range(_GREETINGS):
                connection.sendall(b"?")
                assert connection.recv(1) == b"!"
            with accepting.result() as accepted:
                sender, receiver = (accepted, connection) if back else (connection, accepted)
                receiving = thread.submit(_receive, receiver)
                digest = hashlib.sha256()
                for chunk in _chunks(size):
                    sender.sendall(chunk)
                    digest.update(chunk)
                sender.shutdown(socket.SHUT_WR)
                received = receiving.result()
    assert (received.size, received.digest) == (size, digest.hexdigest())
    return received.longest_wait


def _accept(listener: socket.socket) -> socket.socket:
    """A connection, greeted."""
    connection, _ = listener.accept()
    connection.settimeout(STALL_SECONDS)
    for _ in range(_GREETINGS):
        assert connection.recv(1) == b"?"
        connection.sendall(b"!")
    return connection


def _receive(connection: socket.socket) -> Received:
    digest, buffer, size, longest = hashlib.sha256(), memoryview(bytearray(_CHUNK)), 0, 0.0
    before = time.monotonic()
    while count := connection.recv_into(buffer):
        now = time.monotonic()
        longest, before = max(longest, now - before), now
        digest.update(buffer[:count])
        size += count
    return Received(size, digest.hexdigest(), longest)


def udp(
    ends: Ends,
    *,
    count: int,
    size: int,
    segments: int = 1,
    back: bool = False,
    checksums: bool = True,
) -> None:
    """Send `count` messages of `segments` datagrams of `size` bytes in one flow; all must arrive.

    More than one segment is one send that the kernel cuts (UDP_SEGMENT), as QUIC does. `back`: the
    target sends them, to whom it has heard of once. Without `checksums` none has one.
    """
    with (
        socket_in(ends.target, socket.SOCK_DGRAM) as target,
        socket_in(ends.source, socket.SOCK_DGRAM) as source,
    ):
        target.bind(("", 0))
        source.connect((ends.address, target.getsockname()[1]))
        sender, receiver = (target, source) if back else (source, target)
        for end in (sender, receiver):
            end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if back:
            source.send(b"?")
            target.settimeout(STALL_SECONDS)
            target.connect(target.recvfrom(1)[1])
        if segments > 1:
            sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
        if not checksums:
            sender.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        sent, received = [], []
        numbers = itertools.count()
        for _ in range(count):
            message = [_datagram(next(numbers), size) for _ in range(segments)]
            sender.send(b"".join(message))
            sent += message
            received += _read(receiver, wait=0.0)
        received += _read(receiver, wait=_DATAGRAM_SECONDS, until=len(sent) - len(received))
    assert len(received) == len(sent)
    assert sorted(received) == sorted(sent)


def _datagram(number: int, size: int) -> bytes:
    return number.to_bytes(4, "big") + _BODY[number : number + size - 4]


def _read(receiver: socket.socket, *, wait: float, until: int = 1 << 30) -> list[bytes]:
    """What has come, or up to `until` datagrams that come with no pause longer than `wait`."""
    found: list[bytes] = []
    while len(found) < until and select.select([receiver], [], [], wait)[0]:
        found.append(receiver.recv(1 << 16))
    return found
