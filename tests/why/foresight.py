# SPDX-License-Identifier: Apache-2.0
"""What `vxlane why` says of the next packet, and what that packet then meets."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from taps import inside, socket_in

from vxlane.lab.waiting import wait_for
from vxlane.why import node

PORT = 7300
ENTRANCES = ("from_pod", "from_nic")


def asked(lab, where, source, destination, protocol=None):
    """The one flow that `vxlane why` answers for on a node."""
    (flow,) = document(lab, where, source, destination, protocol)["flows"]
    return flow


def document(lab, where, source, destination, protocol=None):
    """All that `vxlane why` answers on a node."""
    state = lab.node(where).directory
    return inside(lab.netns(where), lambda: node.why(state, source, destination, protocol))


def foretold(answer):
    """Where the next packet is seen, and its verdict."""
    return answer["next"]["program"], answer["next"]["verdict"]


def met(lab, where, send, program):
    """The verdicts of `program` that move on a node when `send` is called, but for ARP and IPv6."""
    before = _counted(lab, where, program)
    send()

    def moved():
        now = _counted(lab, where, program)
        return {(program, verdict) for verdict, count in now.items() if count > before[verdict]}

    return wait_for(moved, f"a packet at {program} of {where}")


def _counted(lab, where, program):
    with lab.maps(where) as maps:
        counters = maps.counters()
    ((_, verdicts),) = ((p, v) for p, v in counters.items() if p.label == program)
    return {v.label: count.packets for v, count in verdicts.items() if v.label != "not_ip"}


@dataclass
class Line:
    """Datagrams between two pods, by a socket of each; each packet is waited for."""

    client: socket.socket
    server: socket.socket
    target: tuple[str, int]
    seen_as: tuple[str, int] | None = None

    @property
    def ends(self):
        """As `vxlane why` is asked for it."""
        host, port = self.client.getsockname()
        return f"{host}:{port}", f"{self.target[0]}:{self.target[1]}"

    def there(self, payload=b"there"):
        """One datagram from the client, which arrives."""
        self.client.sendto(payload, self.target)
        _, self.seen_as = self.server.recvfrom(1 << 16)

    def back(self):
        """One datagram back, which arrives."""
        self.server.sendto(b"back", self.seen_as)
        self.client.recvfrom(1 << 16)

    def lost(self):
        """One datagram from the client, which nobody waits for."""
        self.client.sendto(b"lost", self.target)


def line(stack, lab, client, server, *, port=PORT, target=None):
    """A line between two pods by UDP; `target`: another address that leads to the server."""
    made = []
    for name, own in ((client, 0), (server, port)):
        end = stack.enter_context(socket_in(lab.netns(name), socket.SOCK_DGRAM))
        end.settimeout(5)
        end.bind((lab.address(name), own))
        made.append(end)
    return Line(*made, (target or lab.address(server), port))


@dataclass
class Stream:
    """A TCP connection between two pods."""

    client: socket.socket
    server: socket.socket
    target: tuple[str, int]

    @property
    def ends(self):
        """As `vxlane why` is asked for it."""
        host, port = self.client.getsockname()
        return f"{host}:{port}", f"{self.target[0]}:{self.target[1]}"

    def there(self):
        """A byte from the client, which arrives."""
        self.client.sendall(b">")
        assert self.server.recv(1)

    def back(self):
        """A byte from the server, which arrives."""
        self.server.sendall(b"<")
        assert self.client.recv(1)


def stream(stack, lab, client, server, *, port=PORT, target=None):
    """An open connection between two pods."""
    listener = stack.enter_context(socket_in(lab.netns(server), socket.SOCK_STREAM))
    listener.bind((lab.address(server), port))
    listener.listen()
    calling = stack.enter_context(socket_in(lab.netns(client), socket.SOCK_STREAM))
    calling.bind((lab.address(client), 0))
    where = target or lab.address(server), port
    calling.connect(where)
    answering = stack.enter_context(listener.accept()[0])
    for end in (calling, answering):
        end.settimeout(5)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Stream(calling, answering, where)
