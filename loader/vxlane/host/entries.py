# SPDX-License-Identifier: Apache-2.0
"""The entries that carry an overlay: routes, neighbours and the device's FDB.

An entry is a flat tuple of integers and strings: addresses are integers, MACs lower-case strings
with colons. All entries of a node are in one dict, so 10,000 peers are compared in a few
milliseconds. This module knows how netlink encodes entries. It does not decide which ones there
should be.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from vxlane.errors import KernelError
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Intent, NetlinkSocket, Request, attribute, attributes
from vxlane.util.names import device_name, mac_octets

Key = int | str | tuple[int, int]
"""A neighbour's address, an FDB entry's MAC, a route's network and prefix length."""


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
        body = rt.NDMSG.pack(socket.AF_INET, self.device, rt.NUD_PERMANENT, 0, rt.RTN_UNICAST)
        lladdr = attribute(rt.NDA_LLADDR, mac_octets(self.mac))
        destination = attribute(rt.NDA_DST, rt.BE32.pack(self.address))
        return Request(rt.RTM_NEWNEIGH, body + destination + lladdr, Intent.PUT)

    def remove(self) -> Request:
        """Delete."""
        body = rt.NDMSG.pack(socket.AF_INET, self.device, 0, 0, 0)
        return Request(rt.RTM_DELNEIGH, body + attribute(rt.NDA_DST, rt.BE32.pack(self.address)))


class FdbEntry(NamedTuple):
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
        body = rt.NDMSG.pack(socket.AF_BRIDGE, self.device, rt.NUD_PERMANENT, rt.NTF_SELF, 0)
        destination = attribute(rt.NDA_DST, rt.BE32.pack(self.address))
        lladdr = attribute(rt.NDA_LLADDR, mac_octets(self.mac))
        return Request(rt.RTM_NEWNEIGH, body + destination + lladdr, Intent.PUT)

    def remove(self) -> Request:
        """Delete, with any destination."""
        body = rt.NDMSG.pack(socket.AF_BRIDGE, self.device, rt.NUD_PERMANENT, rt.NTF_SELF, 0)
        return Request(rt.RTM_DELNEIGH, body + attribute(rt.NDA_LLADDR, mac_octets(self.mac)))


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

    @property
    def is_plain(self) -> bool:
        """Whether its gateway is on a link. The kernel accepts the gateway of a tunnel (flannel's
        vxlan and ipip, whose address is a /32) only with `onlink`.
        """
        return not self.flags

    def leads_into(self, network: IPv4Network | None) -> bool:
        """Whether it is a route to a part of `network`, and not to all of it."""
        # k3s writes 0.0.0.0/0 if pods have no IPv4.
        if network is None or not 0 < network.prefixlen < self.prefix_len:
            return False
        return int(network.network_address) <= self.network <= int(network.broadcast_address)

    def put(self) -> Request:
        """Create or replace."""
        return Request(
            rt.RTM_NEWROUTE, self._body(rt.RTPROT_BOOT, rt.RT_SCOPE_UNIVERSE), Intent.PUT
        )

    def remove(self) -> Request:
        """Delete."""
        return Request(rt.RTM_DELROUTE, self._body(0, rt.RT_SCOPE_NOWHERE))

    def _body(self, protocol: int, scope: int) -> bytes:
        head = rt.RTMSG.pack(
            socket.AF_INET,
            self.prefix_len,
            0,
            0,
            rt.RT_TABLE_MAIN,
            protocol,
            scope,
            rt.RTN_UNICAST,
            self.flags,
        )
        return (
            head
            + attribute(rt.RTA_DST, rt.BE32.pack(self.network))
            + attribute(rt.RTA_GATEWAY, rt.BE32.pack(self.gateway))
            + attribute(rt.RTA_OIF, rt.U32.pack(self.device))
        )


Entry = Neighbour | FdbEntry | Route
Entries = dict[Key, Entry]


@dataclass(frozen=True, slots=True)
class Change:
    """Replace `was` by `entry`. If `was` is None, add `entry`; if `entry` is None, remove `was`."""

    entry: Entry | None
    was: Entry | None

    def __str__(self) -> str:
        if self.entry is None:
            return f"remove {self.was}: stale"
        return f"put {self.entry}: " + (f"was {self.was}" if self.was else "missing")


def overlay(cidr: IPv4Network, mac: str, address: int, device: int) -> tuple[Entry, ...]:
    """The entries of a peer that is reached by the VXLAN device, in the order to write them."""
    network = int(cidr.network_address)
    return (
        Neighbour(network, mac, device),
        FdbEntry(mac, address, device),
        Route(network, cidr.prefixlen, network, device, rt.RTNH_F_ONLINK),
    )


def direct(cidr: IPv4Network, gateway: int, device: int) -> tuple[Entry, ...]:
    """The entry of a peer on the same link, which is reached without a tunnel."""
    return (Route(int(cidr.network_address), cidr.prefixlen, gateway, device, 0),)


def read(netlink: NetlinkSocket, device: int) -> Entries:
    """The entries in the kernel: permanent neighbours and FDB entries of `device` (ifindex;
    0: there is none), and the main table's single-hop routes by a gateway, of protocol boot.
    """
    found: Entries = {}
    for kind in (Route, Neighbour, FdbEntry):
        found |= parsed(listed(netlink, device, kind), device, kind)
    return found


def listed(netlink: NetlinkSocket, device: int, kind: type[Entry]) -> list[bytes]:
    """Dump the entries of one kind as netlink messages, for `parsed`."""
    if kind is Route:
        routes = rt.RTMSG.pack(socket.AF_INET, 0, 0, 0, rt.RT_TABLE_MAIN, 0, 0, 0, 0)
        try:
            return netlink.dump(Request(rt.RTM_GETROUTE, routes))
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return []  # The kernel makes the table with its first route.
            raise
    if not device:
        return []
    if kind is Neighbour:
        request = rt.NDMSG.pack(socket.AF_INET, 0, 0, 0, 0)
        request += attribute(rt.NDA_IFINDEX, rt.U32.pack(device))
    else:
        request = rt.NDMSG.pack(socket.AF_BRIDGE, device, 0, 0, 0)
    return netlink.dump(Request(rt.RTM_GETNEIGH, request))


def parsed(bodies: Iterable[bytes], device: int, kind: type[Entry]) -> Entries:
    """The entries in `bodies`, as `read` selects them."""
    found: Iterable[Entry | None]
    if kind is Route:
        found = map(route_of, bodies)
    else:
        found = (neighbour_of(body, device) for body in bodies)
    return {entry.key: entry for entry in found if entry}


def changes(desired: Entries, actual: Entries, network: IPv4Network) -> list[Change]:
    """The changes from `actual` to `desired`, in order: new and different entries, then stale ones.

    Every neighbour and FDB entry that is not desired is stale, since the device is ours. A
    route is stale only if it leads into `network`, that of all pods; other routes are not ours.
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
    """Carry out `wanted` in order, and update `actual`. Returns the failures with their errno."""
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
    """The route in a netlink message. None: `read` would not select it."""
    _, prefix_len, _, tos, table, protocol, _, kind, flags = rt.RTMSG.unpack_from(body)
    if (table, protocol, kind, tos) != (rt.RT_TABLE_MAIN, rt.RTPROT_BOOT, rt.RTN_UNICAST, 0):
        return None
    found = attributes(body, rt.RTMSG.size)
    if rt.RTA_PRIORITY in found or not {rt.RTA_DST, rt.RTA_GATEWAY, rt.RTA_OIF} <= found.keys():
        return None
    return Route(
        rt.BE32.unpack(found[rt.RTA_DST])[0],
        prefix_len,
        rt.BE32.unpack(found[rt.RTA_GATEWAY])[0],
        rt.U32.unpack(found[rt.RTA_OIF])[0],
        flags & rt.RTNH_F_ONLINK,
    )


def route_key(body: bytes) -> Key | None:
    """The key of the route in a netlink message. None: it is not in table main."""
    _, prefix_len, _, _, table, *_ = rt.RTMSG.unpack_from(body)
    destination = attributes(body, rt.RTMSG.size).get(rt.RTA_DST)
    if table != rt.RT_TABLE_MAIN or destination is None:
        return None
    return int(rt.BE32.unpack(destination)[0]), prefix_len


def neighbour_of(body: bytes, device: int) -> Neighbour | FdbEntry | None:
    """The neighbour or FDB entry in a netlink message, if it is permanent on `device`."""
    family, index, state, flags, _ = rt.NDMSG.unpack_from(body)
    if index != device or not state & rt.NUD_PERMANENT:
        return None
    found = attributes(body, rt.NDMSG.size)
    address, mac = found.get(rt.NDA_DST, b""), found.get(rt.NDA_LLADDR, b"")
    if len(address) != rt.BE32.size or not any(mac):
        return None
    if family == socket.AF_INET:
        return Neighbour(rt.BE32.unpack(address)[0], mac.hex(":"), device)
    if not flags & rt.NTF_SELF:
        return None
    return FdbEntry(mac.hex(":"), rt.BE32.unpack(address)[0], device)


def neighbour_key(body: bytes, device: int) -> Key | None:
    """The key of the neighbour or FDB entry in a netlink message, if it is of `device`."""
    family, index, _, flags, _ = rt.NDMSG.unpack_from(body)
    found = attributes(body, rt.NDMSG.size)
    if index != device:
        return None
    if family == socket.AF_INET and len(found.get(rt.NDA_DST, b"")) == rt.BE32.size:
        return int(rt.BE32.unpack(found[rt.NDA_DST])[0])
    return found[rt.NDA_LLADDR].hex(":") if flags & rt.NTF_SELF and rt.NDA_LLADDR in found else None
