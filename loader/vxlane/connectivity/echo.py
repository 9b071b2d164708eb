# SPDX-License-Identifier: Apache-2.0
"""An echo server for TCP and UDP (RFC 862), and clients that compare what comes back.

Imports no other module of vxlane.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from dataclasses import dataclass

PORT = 7
"""The port that RFC 862 gives the service."""

_CHUNK = 0x10000
_ROUND_TRIPS = (*[64] * 30, *[32 * 1024] * 10)
"""Bytes each. The large ones cross the overlay as super-packets, whose checksums a NIC finishes."""
_UDP_OVERHEAD = 20 + 8
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Server:
    """Sockets that are bound to `PORT` in the namespace where they were made."""

    listener: socket.socket
    datagrams: socket.socket

    @classmethod
    def here(cls) -> Server:
        """A server in this thread's network namespace."""
        listener = socket.create_server(("", PORT))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("", PORT))
        return cls(listener, datagrams)

    def run(self) -> None:
        """Serve until an exception, such as Ctrl-C's."""
        while True:
            ready, _, _ = select.select([self.listener, self.datagrams], [], [])
            if self.listener in ready:
                connection, _ = self.listener.accept()
                threading.Thread(target=_echo, args=[connection], daemon=True).start()
            if self.datagrams in ready:
                _answer(self.datagrams)


def _answer(datagrams: socket.socket) -> None:
    data, sender = datagrams.recvfrom(_CHUNK)
    if sender[1] != PORT:  # two echo servers would answer each other for ever
        # A sender may have no port, or be one that nothing leads to.
        with contextlib.suppress(OSError):
            datagrams.sendto(data, sender)


def _echo(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(_CHUNK):
                connection.sendall(data)
        except OSError:
            pass  # the other end is gone


def round_trips(connection: socket.socket, *, pace: float) -> list[int]:
    """Send and get back, and wait `pace` seconds; when each trip began, ns of CLOCK_MONOTONIC.

    ValueError: what came back is not what was sent. OSError: nothing came in time, or no more.
    """
    begun = []
    for size in _ROUND_TRIPS:
        sent = os.urandom(size)
        begun.append(time.monotonic_ns())
        connection.sendall(sent)
        back = bytearray()
        while len(back) < size:
            data = connection.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("the other end closed the connection")
            back += data
        if back != sent:
            raise ValueError(f"{size:,} bytes came back changed")
        time.sleep(pace)
    return begun


def datagram_sizes(mtu: int) -> tuple[int, ...]:
    """Bytes of data to try on a path of that MTU: little, usual, and all that fits."""
    return 1, 512, mtu - _UDP_OVERHEAD


def comes_back(datagrams: socket.socket, size: int) -> bool:
    """Whether a datagram of `size` bytes comes back as it was, in one of three tries.

    `datagrams` is connected, so that an ICMP error ends the waiting.
    """
    for _ in range(_TRIES):
        sent = os.urandom(size)
        try:
            datagrams.send(sent)
            while datagrams.recv(_CHUNK) != sent:
                pass  # a late answer to an earlier try
            return True
        except OSError:
            pass  # lost there or back, or refused
    return False
