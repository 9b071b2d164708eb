# SPDX-License-Identifier: Apache-2.0
"""One flow of datagrams between two pods, and what of it arrived as what."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

from standing import entered

WARM = 5
"""Round trips before anything is counted: from the second one on the flow could be bypassed."""
COUNT = 100
SECRET, PUBLIC = b"secret", b"public"
SHORT, LONG = 100, 900
DSCP = 0x28
"""Of every fifth datagram, as a TOS."""
_IP_RECVTTL, _SO_RCVBUFFORCE = 12, 33  # linux/in.h, asm-generic/socket.h
_PAUSE = 0.001  # seconds
_SILENCE = 0.3
"""Seconds after which nothing more of a flow is expected."""
_WARM_TIMEOUT = 5.0
"""Seconds. A datagram of the warm-up comes, however busy the machine is."""


@dataclass(frozen=True)
class Arrived:
    """What came of COUNT datagrams."""

    count: int
    secret: int
    long: int
    marked: int
    tos: frozenset[int]
    ttl: frozenset[int]


def datagram(lab, name, port=0):
    """A UDP socket in a pod's namespace, which tells TOS and TTL."""
    with entered(lab.netns(name)):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((lab.address(name), port))
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
    made.settimeout(_SILENCE)
    for option in (socket.IP_RECVTOS, _IP_RECVTTL):
        made.setsockopt(socket.IPPROTO_IP, option, 1)
    return made


def flow(lab, source, target, service=None, *, is_answer=False):
    """Send one flow from pod to pod; the WARM round trips must arrive as well.

    `service`: the address and port that it is sent to, in place of the target's own. The target
    listens on the same port. With `is_answer` the target sends, to whom it got the first ones from.
    """
    with (
        contextlib.closing(datagram(lab, source)) as client,
        contextlib.closing(datagram(lab, target, service[1] if service else 0)) as server,
    ):
        client.connect(service or server.getsockname())
        for each in (client, server):
            each.settimeout(_WARM_TIMEOUT)
        for _ in range(WARM):
            client.send(PUBLIC.ljust(SHORT))
            _, peer = server.recvfrom(2048)
            server.sendto(b"", peer)
            client.recv(2048)
        sender, receiver = (server, client) if is_answer else (client, server)
        if is_answer:
            server.connect(peer)
        for number in range(COUNT):
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0 if number % 5 else DSCP)
            text = SECRET if number % 2 else PUBLIC
            sender.send(text.ljust(LONG if number % 4 > 1 else SHORT))
            time.sleep(_PAUSE)
        return _arrived(receiver)


def _arrived(receiver):
    texts, tos, ttl, marked = [], set(), set(), 0
    receiver.settimeout(_SILENCE)
    with contextlib.suppress(TimeoutError):
        while True:
            text, ancillary, _, _ = receiver.recvmsg(2048, 256)
            texts.append(text)
            for _, kind, data in ancillary:
                value = data[0] if len(data) == 1 else struct.unpack("=i", data)[0]
                (tos if kind == socket.IP_TOS else ttl).add(value)
                marked += kind == socket.IP_TOS and value == DSCP
    return Arrived(
        len(texts),
        sum(text.startswith(SECRET) for text in texts),
        sum(len(text) == LONG for text in texts),
        marked,
        frozenset(tos),
        frozenset(ttl),
    )


def status(lab, node):
    """What the node's agent says."""
    return lab.ask(node, op="status")["status"]
