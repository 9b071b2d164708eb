# SPDX-License-Identifier: Apache-2.0
"""Sockets in other namespaces: raw frames in and out of a device, and plain sockets of pods.

A socket belongs to the namespace that its thread was in when it was made, and stays usable from
everywhere: no test needs a process in a pod to be a program in that pod.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vxlane.lab import namespaces

Answer = TypeVar("Answer")

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
# linux/if_packet.h
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_OUTGOING = 263, 15, 4
_SO_RCVBUFFORCE = 33
_BUFFER = 64 << 20
_VNET_HEADER = struct.Struct("=BBHHHH")
_libc = ctypes.CDLL(None, use_errno=True)


def inside(namespace: str, function: Callable[[], Answer]) -> Answer:
    """Call in `namespace`, by a thread of its own: setns(2) is per thread."""
    with ThreadPoolExecutor(1, initializer=_enter, initargs=(namespace,)) as thread:
        return thread.submit(function).result()


def _enter(namespace: str) -> None:
    descriptor = os.open(namespaces.path(namespace), os.O_RDONLY)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(descriptor)


def socket_in(namespace: str, kind: socket.SocketKind) -> socket.socket:
    """An IPv4 socket of `namespace`."""
    return inside(namespace, lambda: socket.socket(socket.AF_INET, kind))


class Tap:
    """What arrives at a device, and what is put there; never what the device itself sends."""

    def __init__(self, namespace: str, device: str) -> None:
        self._socket = inside(namespace, lambda: _packet_socket(device))

    def send(self, frame: bytes) -> None:
        """Hand a frame to the device as it is."""
        self._socket.send(frame)

    def drain(self) -> list[bytes]:
        """What has arrived and was not read yet."""
        return list(self._frames())

    def fileno(self) -> int:
        """For select(2): readable when something has arrived."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _frames(self):
        while True:
            try:
                frame, address = self._socket.recvfrom(1 << 17)
            except BlockingIOError:
                return
            if address[2] != _PACKET_OUTGOING:
                yield frame


class SegmentTap(Tap):
    """A tap that tells of each frame the size of the segments that it stands for, 0: itself."""

    def __init__(self, namespace: str, device: str) -> None:
        super().__init__(namespace, device)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)

    def segments(self) -> list[tuple[int, bytes]]:
        """(gso_size, frame) of what has arrived (struct virtio_net_hdr, linux/virtio_net.h)."""
        split = _VNET_HEADER.size
        return [(_VNET_HEADER.unpack(raw[:split])[3], raw[split:]) for raw in self._frames()]


def _packet_socket(device: str) -> socket.socket:
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    packet.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    packet.bind((device, _ETH_P_ALL))
    os.set_blocking(packet.fileno(), False)
    return packet
