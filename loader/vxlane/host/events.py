# SPDX-License-Identifier: Apache-2.0
"""What the kernel tells unasked: devices, addresses, routes, neighbours, qdiscs, netfilter rules.

An event only says what to read again; the state itself is read by whoever needs it. Owns the
descriptors, which are non-blocking and meant for a selector.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass, field

from vxlane.host.entries import (
    Entry,
    Key,
    neighbour_key,
    neighbour_of,
    route_key,
    route_of,
)
from vxlane.netlink.socket import Message, split

_NEWLINK, _DELLINK = 16, 17
_NEWADDR, _DELADDR = 20, 21
_NEWROUTE, _DELROUTE = 24, 25
_NEWNEIGH, _DELNEIGH = 28, 29
_NEWRULE, _DELRULE = 32, 33
_NEWQDISC, _DELTFILTER = 36, 45
_GROUP_LINK, _GROUP_NEIGH, _GROUP_TC = 0, 2, 3  # RTNLGRP_* - 1
_GROUP_IPV4_IFADDR, _GROUP_IPV4_ROUTE, _GROUP_IPV4_RULE = 4, 6, 7
_GROUPS = (
    _GROUP_LINK,
    _GROUP_NEIGH,
    _GROUP_TC,
    _GROUP_IPV4_IFADDR,
    _GROUP_IPV4_ROUTE,
    _GROUP_IPV4_RULE,
)
_NETLINK_NETFILTER, _GROUP_NFTABLES = 12, 6
_NFT_NEWGEN = 10 << 8 | 15  # the end of every transaction, of nft and iptables-nft alike

_SO_RCVBUFFORCE = 33
_BUFFER = 4 << 20
"""Room for the events of our own first 10,000 peers."""
_IFINDEX = struct.Struct("=xxxxi")  # of ifinfomsg, ifaddrmsg, ndmsg and tcmsg alike


@dataclass(slots=True)
class Events:
    """What one reading of the descriptor brought."""

    removed: set[int] = field(default_factory=set)
    """Ifindexes of devices that are gone."""
    touched: set[int] = field(default_factory=set)
    """Ifindexes of devices, or their qdiscs and filters, that changed."""
    entries: dict[Key, Entry | None] = field(default_factory=dict)
    """As they are now, None where there is none any more: routes of any device; neighbours and
    forwarding entries of the watched one."""
    doubtful: set[Key] = field(default_factory=set)
    """Where a route of another kind came: it may have taken the place of one that was known."""
    routing: bool = False
    """Addresses, rules or other routes changed: a next hop may have."""
    lost: bool = False
    """Events did not fit the buffer: anything may have changed."""


class RouteEvents:
    """Follows devices, addresses, routes and rules, and the neighbours of one device."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self._socket.bind((0, sum(1 << group for group in _GROUPS)))

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def read(self, device: int) -> Events:
        """All that is waiting; entries are those of `device` (ifindex, 0: none)."""
        events = Events()
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return events
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                events.lost = True
                continue
            for message in split(datagram):
                _sort(message, device, events)


def _sort(message: Message, device: int, events: Events) -> None:
    kind, body = message.kind, message.body
    if kind in {_NEWNEIGH, _DELNEIGH}:
        # One that was deleted is first told as new and failed, without its MAC.
        if (key := neighbour_key(body, device)) is not None:
            events.entries[key] = neighbour_of(body, device) if kind == _NEWNEIGH else None
    elif kind in {_NEWROUTE, _DELROUTE}:
        route = route_of(body)
        if route:
            events.entries[route.key] = route if kind == _NEWROUTE else None
        elif kind == _NEWROUTE and (key := route_key(body)) is not None:
            events.doubtful.add(key)
        if route is None or route.device != device:
            events.routing = True
    elif kind in {_NEWADDR, _DELADDR, _NEWRULE, _DELRULE}:
        events.routing = True
    elif kind == _DELLINK and body[0] != socket.AF_BRIDGE:
        events.removed.add(_IFINDEX.unpack_from(body)[0])
    elif kind in {_NEWLINK, _DELLINK} or _NEWQDISC <= kind <= _DELTFILTER:
        # AF_BRIDGE's DELLINK is a port that leaves its bridge, not a device that goes.
        events.touched.add(_IFINDEX.unpack_from(body)[0])


class RulesetEvents:
    """Follows transactions of nftables, iptables-nft's included; iptables-legacy has no events."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self._socket.bind((0, 1 << _GROUP_NFTABLES))

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def read(self) -> bool:
        """Read all that is waiting; whether some ruleset changed."""
        has_changed = False
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return has_changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                has_changed = True
                continue
            has_changed |= any(message.kind == _NFT_NEWGEN for message in split(datagram))
