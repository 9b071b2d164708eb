# SPDX-License-Identifier: Apache-2.0
"""Netlink's multicast events: devices, addresses, routes, neighbours, qdiscs, rules, IPsec.

Most events only say what to read again. Owns the sockets, which are non-blocking and meant for a
selector.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass, field

from vxlane.host.entries import (
    Entry,
    Key,
    neighbour_key,
    neighbour_of,
    route_key,
    route_of,
)
from vxlane.host.own_tables import OWN_TABLES
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink import xfrm
from vxlane.netlink.socket import SO_RCVBUFFORCE, Message, attributes, group_mask, split, text_of
from vxlane.netlink.socket_filter import hear_own_entries_only

_GROUPS = (
    rt.RTNLGRP_LINK,
    rt.RTNLGRP_NEIGH,
    rt.RTNLGRP_TC,
    rt.RTNLGRP_IPV4_IFADDR,
    rt.RTNLGRP_IPV4_ROUTE,
    rt.RTNLGRP_IPV4_RULE,
    rt.RTNLGRP_NEXTHOP,
)
_OF_ROUTING = frozenset(
    {
        *(rt.RTM_NEWADDR, rt.RTM_DELADDR, rt.RTM_NEWRULE, rt.RTM_DELRULE),
        # The kernel tells of no route that goes with its nexthop object.
        *(rt.RTM_NEWNEXTHOP, rt.RTM_DELNEXTHOP),
    }
)
_BUFFER = 4 << 20
"""Bytes: the events of the first 10,000 peers, which the agent causes itself, must fit."""


@dataclass(slots=True)
class Events:
    """The events of one read."""

    removed: set[int] = field(default_factory=set)
    """Ifindexes of devices that were removed."""
    touched: set[int] = field(default_factory=set)
    """Ifindexes of devices, or their qdiscs and filters, that changed, or that lost an address."""
    entries: dict[Key, Entry | None] = field(default_factory=dict)
    """Entries as they are now; None: the entry was removed. Routes are of any device, neighbours
    and FDB entries of the watched one."""
    doubtful: set[Key] = field(default_factory=set)
    """Keys of routes of another kind that were added. They may have replaced known routes."""
    routing: bool = False
    """Whether addresses, rules or other routes changed, and so next hops may have changed."""
    lost: bool = False
    """Events did not fit the buffer, so anything may have changed."""


class RouteEvents:
    """Follows devices, addresses, routes and rules, and the neighbours of one device."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        self._socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        hear_own_entries_only(self._socket)
        self._socket.bind((0, group_mask(*_GROUPS)))

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def read(self, device: int) -> Events:
        """Read all waiting events. Neighbours and FDB entries are those of `device` (0: none)."""
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
    if kind in {rt.RTM_NEWNEIGH, rt.RTM_DELNEIGH}:
        # A deleted neighbour is first reported as new and failed, without its MAC.
        if (key := neighbour_key(body, device)) is not None:
            events.entries[key] = neighbour_of(body, device) if kind == rt.RTM_NEWNEIGH else None
    elif kind in {rt.RTM_NEWROUTE, rt.RTM_DELROUTE}:
        route = route_of(body)
        if route:
            events.entries[route.key] = route if kind == rt.RTM_NEWROUTE else None
        elif kind == rt.RTM_NEWROUTE and (key := route_key(body)) is not None:
            events.doubtful.add(key)
        if route is None or route.device != device:
            events.routing = True
    elif kind in _OF_ROUTING:
        events.routing = True
        if kind == rt.RTM_DELADDR:
            # With its last address a device loses its routes, and none of them has an event.
            events.touched.add(rt.IFINDEX.unpack_from(body)[0])
    elif kind == rt.RTM_DELLINK and body[0] != socket.AF_BRIDGE:
        events.removed.add(rt.IFINDEX.unpack_from(body)[0])
    elif kind in {rt.RTM_NEWLINK, rt.RTM_DELLINK} or rt.RTM_NEWQDISC <= kind <= rt.RTM_DELTFILTER:
        # AF_BRIDGE's RTM_DELLINK says that a port left its bridge, not that a device was removed.
        events.touched.add(rt.IFINDEX.unpack_from(body)[0])


_OWN_TABLES = frozenset((socket.AF_INET, table.encode() + b"\0") for table in OWN_TABLES)

ObjectName = tuple[int, str, str]
"""Family (NFPROTO_*), table, and the chain, set or object in it; empty: the table itself."""


@dataclass(frozen=True, slots=True)
class RulesetChange:
    """The changes of one or more nftables transactions."""

    names: frozenset[ObjectName] = frozenset()
    """Chains with changed rules, sets with changed elements, objects added or removed."""
    bases: bool = False
    """Whether base chains that see every packet were added, or tables were removed."""
    lost: bool = False
    """Events did not fit the buffer, so anything may have changed."""


class RulesetEvents:
    """Follows transactions of nftables, iptables-nft's included; iptables-legacy has no events."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, nf.NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        self._socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self._socket.bind((0, group_mask(nf.NFNLGRP_NFTABLES)))

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def read(self) -> RulesetChange | None:
        """Read all waiting events. None: there are none."""
        found: set[_RawName] = set()
        has_lost = False
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                has_lost = True
                continue
            _note(datagram, found)
        if not found and not has_lost:
            return None
        names = {(family, text_of(table), text_of(name)) for _, family, table, name in found}
        bases = any(kind in nf.NFT_MSGS_OF_BASES for kind, _, _, _ in found)
        return RulesetChange(frozenset(names), bases, has_lost)


_RawName = tuple[int, int, bytes, bytes]
"""Message type, or 0 for one about rules or elements; family, table and name."""
_NFT_HEADER = struct.Struct("=IHxxxxxxxxxxBxxxHxx")  # nlmsghdr, nfgenmsg, length of an attribute
_ATTRIBUTES, _NAME = 20, 4  # bytes of both headers; of an attribute's


def _note(datagram: bytes, found: set[_RawName]) -> None:
    """Add the names in the messages of one datagram, without those of vxlane's own tables.

    kube-proxy's full synchronisation is tens of thousands of messages, so only two attributes are
    read. The first attribute of each is the table, the second a name in it (NFTA_RULE_CHAIN,
    NFTA_CHAIN_NAME, NFTA_SET_NAME, NFTA_SET_ELEM_LIST_SET, NFTA_OBJ_NAME, NFTA_FLOWTABLE_NAME).
    """
    offset, end = 0, len(datagram) - _NFT_HEADER.size
    while offset <= end:
        length, kind, family, size = _NFT_HEADER.unpack_from(datagram, offset)
        first = offset + _ATTRIBUTES
        second = first + ((size + 3) & ~3)
        after = second + int.from_bytes(datagram[second : second + 2], sys.byteorder)
        table = datagram[first + _NAME : first + size]
        if kind != nf.NFT_MSG_NEWGEN and (family, table) not in _OWN_TABLES:
            is_table = kind in nf.NFT_MSGS_OF_TABLES
            is_base = kind == nf.NFT_MSG_DELTABLE or (
                kind == nf.NFT_MSG_NEWCHAIN
                and _is_called_for_every_packet(datagram[offset : offset + length])
            )
            found.add(
                (
                    kind if is_base else 0,
                    family,
                    table,
                    b"" if is_table else datagram[second + _NAME : after],
                )
            )
        offset += (length + 3) & ~3


def _is_called_for_every_packet(message: bytes) -> bool:
    """Whether the chain in a message is a base chain that sees every packet.

    Chains of type nat see only a connection's first packet. They are excluded because knftables,
    which kube-proxy and portmap use, adds its tables and chains again in each transaction.
    """
    found = attributes(message, _ATTRIBUTES)
    return nf.NFTA_CHAIN_HOOK in found and found.get(nf.NFTA_CHAIN_TYPE) != b"nat\0"


class XfrmEvents:
    """Follows the policies and states of IPsec. OSError: this kernel has no IPsec."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, xfrm.NETLINK_XFRM)
        self._socket.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self._socket.bind((0, group_mask(xfrm.XFRMNLGRP_SA, xfrm.XFRMNLGRP_POLICY)))

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop following."""
        self._socket.close()

    def read(self) -> bool:
        """Read all waiting events. True: something has changed, or may have."""
        has_changed = False
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return has_changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            has_changed = True


def xfrm_events() -> XfrmEvents | None:
    """A follower of IPsec's events. None: this kernel has no IPsec."""
    try:
        return XfrmEvents()
    except OSError:
        return None
