# SPDX-License-Identifier: Apache-2.0
"""The entries that carry an overlay: routes, neighbours and the device's forwarding table.

An entry is a flat tuple of integers and strings (addresses are integers, MACs lower-case colon
strings) and all entries of a node are one dict by key, so that 10,000 peers are compared in a few
milliseconds. Knows how entries look in netlink; which there should be is not decided here.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from vxlane.netlink.socket import Intent, NetlinkSocket, Request, attribute, attributes
from vxlane.util.names import device_name, mac_octets

# linux/rtnetlink.h and linux/neighbour.h
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _DELNEIGH, _GETNEIGH = 28, 29, 30
_RTMSG = struct.Struct("=8BI")  # family, dst_len, src_len, tos, table, protocol, scope, type; flags
_NDMSG = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
_U32 = struct.Struct("=I")
_IPV4 = struct.Struct("!I")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_TABLE_MAIN, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, _SCOPE_NOWHERE, _UNICAST = 254, 3, 0, 255, 1
_ONLINK = 4
_PERMANENT, _SELF = 0x80, 0x02

Key = int | str | tuple[int, int]
"""Of a neighbour its address, of a forwarding entry its MAC, of a route its network."""


class Neighbour(NamedTuple):
    """`ip neigh ADDRESS lladdr MAC dev DEVICE nud permanent`."""

    address: int
    mac: str
    device: int

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.address

    def __str__(self) -> str:
        return f"neighbour {IPv4Address(self.address)} lladdr {self.mac}"

    def put(self) -> Request:
        """Create or replace."""
        body = _NDMSG.pack(socket.AF_INET, self.device, _PERMANENT, 0, _UNICAST)
        lladdr = attribute(_NDA_LLADDR, mac_octets(self.mac))
        destination = attribute(_NDA_DST, _IPV4.pack(self.address))
        return Request(_NEWNEIGH, body + destination + lladdr, Intent.PUT)

    def remove(self) -> Request:
        """Delete."""
        body = _NDMSG.pack(socket.AF_INET, self.device, 0, 0, 0)
        return Request(_DELNEIGH, body + attribute(_NDA_DST, _IPV4.pack(self.address)))


class Forwarding(NamedTuple):
    """`bridge fdb MAC dev DEVICE dst ADDRESS self permanent`."""

    mac: str
    address: int
    device: int

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.mac

    def __str__(self) -> str:
        return f"fdb {self.mac} dst {IPv4Address(self.address)}"

    def put(self) -> Request:
        """Create or replace."""
        body = _NDMSG.pack(socket.AF_BRIDGE, self.device, _PERMANENT, _SELF, 0)
        destination = attribute(_NDA_DST, _IPV4.pack(self.address))
        lladdr = attribute(_NDA_LLADDR, mac_octets(self.mac))
        return Request(_NEWNEIGH, body + destination + lladdr, Intent.PUT)

    def remove(self) -> Request:
        """Delete, whatever the destination."""
        body = _NDMSG.pack(socket.AF_BRIDGE, self.device, _PERMANENT, _SELF, 0)
        return Request(_DELNEIGH, body + attribute(_NDA_LLADDR, mac_octets(self.mac)))


class Route(NamedTuple):
    """`ip route NETWORK/PREFIX_LEN via GATEWAY dev DEVICE [onlink]` in table main, metric 0."""

    network: int
    prefix_len: int
    gateway: int
    device: int
    flags: int
    """ONLINK or 0."""

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.network, self.prefix_len

    def __str__(self) -> str:
        onlink = " onlink" if self.flags else ""
        network = f"{IPv4Address(self.network)}/{self.prefix_len}"
        gateway = IPv4Address(self.gateway)
        return f"route {network} via {gateway} dev {device_name(self.device)}{onlink}"

    def put(self) -> Request:
        """Create or replace."""
        return Request(_NEWROUTE, self._body(_PROTOCOL_BOOT, _SCOPE_UNIVERSE), Intent.PUT)

    def remove(self) -> Request:
        """Delete."""
        return Request(_DELROUTE, self._body(0, _SCOPE_NOWHERE))

    def _body(self, protocol: int, scope: int) -> bytes:
        head = _RTMSG.pack(
            socket.AF_INET,
            self.prefix_len,
            0,
            0,
            _TABLE_MAIN,
            protocol,
            scope,
            _UNICAST,
            self.flags,
        )
        return (
            head
            + attribute(_RTA_DST, _IPV4.pack(self.network))
            + attribute(_RTA_GATEWAY, _IPV4.pack(self.gateway))
            + attribute(_RTA_OIF, _U32.pack(self.device))
        )


Entry = Neighbour | Forwarding | Route
Entries = dict[Key, Entry]


@dataclass(frozen=True, slots=True)
class Change:
    """`entry` is to be there instead of `was`; or, where `entry` is None, `was` is to go."""

    entry: Entry | None
    was: Entry | None

    def __str__(self) -> str:
        if self.entry is None:
            return f"remove {self.was}: stale"
        return f"put {self.entry}: " + (f"was {self.was}" if self.was else "missing")


def overlay(cidr: IPv4Network, mac: str, address: int, device: int) -> tuple[Entry, ...]:
    """What carries packets to a peer through the VXLAN device, in the order to write it."""
    network = int(cidr.network_address)
    return (
        Neighbour(network, mac, device),
        Forwarding(mac, address, device),
        Route(network, cidr.prefixlen, network, device, _ONLINK),
    )


def direct(cidr: IPv4Network, gateway: int, device: int) -> tuple[Entry, ...]:
    """What carries packets to a peer of the same L2 without a tunnel."""
    return (Route(int(cidr.network_address), cidr.prefixlen, gateway, device, 0),)


def read(netlink: NetlinkSocket, device: int) -> Entries:
    """What there is: permanent neighbours and forwarding entries of `device` (ifindex, 0: there
    is none), and the main table's single-hop routes by a gateway, of protocol boot.
    """
    found: Entries = {}
    for kind in (Route, Neighbour, Forwarding):
        found |= parsed(listed(netlink, device, kind), device, kind)
    return found


def listed(netlink: NetlinkSocket, device: int, kind: type[Entry]) -> list[bytes]:
    """The netlink messages about entries of one kind, for `parsed`."""
    if kind is Route:
        routes = _RTMSG.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, 0, 0, 0, 0)
        return netlink.dump(Request(_GETROUTE, routes))
    if not device:
        return []
    if kind is Neighbour:
        request = _NDMSG.pack(socket.AF_INET, 0, 0, 0, 0)
        request += attribute(_NDA_IFINDEX, _U32.pack(device))
    else:
        request = _NDMSG.pack(socket.AF_BRIDGE, device, 0, 0, 0)
    return netlink.dump(Request(_GETNEIGH, request))


def parsed(bodies: Iterable[bytes], device: int, kind: type[Entry]) -> Entries:
    """Those of `listed` that `read` reads."""
    found: Iterable[Entry | None]
    if kind is Route:
        found = map(route_of, bodies)
    else:
        found = (neighbour_of(body, device) for body in bodies)
    return {entry.key: entry for entry in found if entry}


def changes(desired: Entries, actual: Entries, network: IPv4Network) -> list[Change]:
    """What makes `actual` `desired`, in order: what is new or different as listed, then the stale.

    Stale are all neighbours and forwarding entries read, they are the device's, and the routes to
    networks inside `network`, that of all pods. Routes to elsewhere are other people's.
    """
    get = actual.get
    found = [Change(entry, get(key)) for key, entry in desired.items() if get(key) != entry]
    first, last = int(network.network_address), int(network.broadcast_address)
    found += [
        Change(None, entry)
        for key, entry in actual.items()
        if key not in desired
        and not (isinstance(entry, Route) and not first <= entry.network <= last)
    ]
    return found


def write(
    netlink: NetlinkSocket, wanted: list[Change], actual: Entries
) -> list[tuple[Change, int]]:
    """Carry out `wanted` in order and note each success in `actual`; the failures, with errno."""
    codes = netlink.write([_request(change) for change in wanted])
    failed = []
    for change, code in zip(wanted, codes, strict=True):
        if change.entry is not None and not code:
            actual[change.entry.key] = change.entry
        elif change.was is not None and code in {0, errno.ENOENT, errno.ESRCH}:
            actual.pop(change.was.key, None)
        else:
            failed.append((change, code))
    return failed


def _request(change: Change) -> Request:
    if change.entry is not None:
        return change.entry.put()
    assert change.was is not None
    return change.was.remove()


def route_of(body: bytes) -> Route | None:
    """The route in a netlink message, if it is of the kind that `read` reads."""
    _, prefix_len, _, tos, table, protocol, _, kind, flags = _RTMSG.unpack_from(body)
    if (table, protocol, kind, tos) != (_TABLE_MAIN, _PROTOCOL_BOOT, _UNICAST, 0):
        return None
    found = attributes(body, _RTMSG.size)
    if _RTA_PRIORITY in found or not {_RTA_DST, _RTA_GATEWAY, _RTA_OIF} <= found.keys():
        return None
    return Route(
        _IPV4.unpack(found[_RTA_DST])[0],
        prefix_len,
        _IPV4.unpack(found[_RTA_GATEWAY])[0],
        _U32.unpack(found[_RTA_OIF])[0],
        flags & _ONLINK,
    )


def route_key(body: bytes) -> Key | None:
    """Which network a netlink message about a route is about; None: not one of table main."""
    _, prefix_len, _, _, table, *_ = _RTMSG.unpack_from(body)
    destination = attributes(body, _RTMSG.size).get(_RTA_DST)
    if table != _TABLE_MAIN or destination is None:
        return None
    return int(_IPV4.unpack(destination)[0]), prefix_len


def neighbour_of(body: bytes, device: int) -> Neighbour | Forwarding | None:
    """The neighbour or forwarding entry in a netlink message, if `device` has it for good."""
    family, index, state, flags, _ = _NDMSG.unpack_from(body)
    if index != device or not state & _PERMANENT:
        return None
    found = attributes(body, _NDMSG.size)
    address, mac = found.get(_NDA_DST, b""), found.get(_NDA_LLADDR, b"")
    if len(address) != _IPV4.size or not any(mac):
        return None
    if family == socket.AF_INET:
        return Neighbour(_IPV4.unpack(address)[0], mac.hex(":"), device)
    return Forwarding(mac.hex(":"), _IPV4.unpack(address)[0], device) if flags & _SELF else None


def neighbour_key(body: bytes, device: int) -> Key | None:
    """Which neighbour or forwarding entry of `device` a netlink message is about, if one."""
    family, index, _, flags, _ = _NDMSG.unpack_from(body)
    found = attributes(body, _NDMSG.size)
    if index != device:
        return None
    if family == socket.AF_INET and len(found.get(_NDA_DST, b"")) == _IPV4.size:
        return int(_IPV4.unpack(found[_NDA_DST])[0])
    return found[_NDA_LLADDR].hex(":") if flags & _SELF and _NDA_LLADDR in found else None
