# SPDX-License-Identifier: Apache-2.0
"""How a TCP connection may end, step by step, and which of its segments are heard where."""

from __future__ import annotations

import collections
import contextlib
import socket
import struct

import pytest
from frames import ENCAPSULATION, ETHERNET, FIN, IP, TCP, UDP
from taps import Tap

NOBODY = bytes.fromhex("03786c616e65")
"""What a copy for conntrack is addressed to, see bpf/conntrack.h."""
_LINGER = struct.pack("ii", 1, 0)  # close() sends a RST


def client_closes(client, server):
    """The client sends its FIN, and the server hears it."""
    client.shutdown(socket.SHUT_WR)
    assert not server.recv(1)


def server_closes(client, server):
    """The server does."""
    client_closes(server, client)


def both_close(client, server):
    """Both do, before either has heard of it."""
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)


def client_says_goodbye(client, server):
    """The client's FIN has data before it, in the same segment."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    client.send(b"bye")
    client.shutdown(socket.SHUT_WR)
    assert server.recv(64) == b"bye"
    assert not server.recv(1)


def server_streams(client, server):
    """The server sends a megabyte."""
    pour(server, client, 1 << 20)


def server_resets(client, server):
    """The server breaks off."""
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def pour(speaker, hearer, size):
    """Send `size` bytes and read them, in pieces that no buffer is too small for."""
    piece = bytes(32768)
    for _ in range(size // len(piece)):
        speaker.sendall(piece)
        assert len(hearer.recv(len(piece), socket.MSG_WAITALL)) == len(piece)


ENDS = {
    "client first": (client_closes, server_closes),
    "server first": (server_closes, client_closes),
    "at once": (both_close,),
    "half-closed stream": (client_closes, server_streams, server_closes),
    "FIN with data": (client_says_goodbye, server_closes),
    "FIN and RST": (client_closes, server_resets),
}


class Ears:
    """Hears the segments of one connection that come in at pods, nodes and nodes' devices.

    Pods are promiscuous meanwhile.
    """

    def __init__(self, lab, client):
        self._lab = lab
        self._port = client.getsockname()[1]
        prefix = f"{lab.lab.name}-"
        self._pods = [pod.name.removeprefix(prefix) for pod in lab.lab.pods]
        nodes = [node.name.removeprefix(prefix) for node in lab.lab.nodes]
        self._bridges = [(node, device) for node in nodes for device in ("cni0", "flannel.1")]
        self._places = [(place, "eth0") for place in (*self._pods, *nodes)] + self._bridges
        self.heard = {}
        """(place, device) -> [(destination MAC, segment)]."""

    def __enter__(self):
        """Begin to listen."""
        with contextlib.ExitStack() as stack:
            for pod in self._pods:
                self._promiscuous(pod, "on")
                stack.callback(self._promiscuous, pod, "off")
            self._taps = {
                (place, device): Tap(self._lab.netns(place), device)
                for place, device in self._places
            }
            for tap in self._taps.values():
                stack.callback(tap.close)
            self._ends = stack.pop_all()
        return self

    def __exit__(self, *_):
        """Keep what was heard."""
        self.heard = {
            place: list(filter(None, (self._segment(frame) for frame in tap.drain())))
            for place, tap in self._taps.items()
        }
        self._ends.close()

    def _promiscuous(self, pod, state):
        self._lab.exec(pod, "ip", "link", "set", "eth0", "promisc", state)

    def _segment(self, frame):
        """What tells the segment from all others, a copy of it aside; None: not this talk's."""
        packet = frame[ETHERNET:]
        if packet[9:10] == bytes([UDP]):
            packet = packet[ENCAPSULATION:]
        if len(packet) < 2 * IP or packet[9] != TCP:
            return None
        source, dest, sequence, acknowledged, _, flags = struct.unpack_from("!HHIIBB", packet, IP)
        if self._port not in (source, dest):
            return None
        segment = (source, packet[4:6], sequence, acknowledged, flags, len(packet))
        return frame[: len(NOBODY)], segment

    def copies(self):
        """How many copies the nodes' own devices heard."""
        return sum(mac == NOBODY for place in self._bridges for mac, _ in self.heard[place])

    def hearers(self):
        """The pods that heard any segment."""
        return {pod for pod in self._pods if self.heard[pod, "eth0"]}

    def repeated(self):
        """What pods or nodes heard that was a copy, or twice: [(place, segment)]."""
        found = []
        for (place, device), heard in self.heard.items():
            times = collections.Counter(segment for _, segment in heard)
            if device == "eth0":
                found += [(place, one) for one in times if times[one] > 1]
                found += [(place, one) for mac, one in heard if mac == NOBODY]
        return found

    def fins(self, pod):
        """How many FINs a pod heard."""
        return sum(bool(segment[4] & FIN) for _, segment in self.heard[pod, "eth0"])
