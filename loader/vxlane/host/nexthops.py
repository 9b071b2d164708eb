# SPDX-License-Identifier: Apache-2.0
"""The path to each peer: the NIC and the on-link neighbour that the kernel would send to now.

The kernel itself is asked (RTM_GETROUTE), so policy routing, metrics and cached path MTUs count.
The question is that of the VXLAN device: UDP to its port, from its address, through any NIC. (The
device is bound to its NIC for its default remote only, not for its FDB entries.) Only routes
are resolved here; the programs look up the neighbour's MAC for each packet.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes


@dataclass(frozen=True, slots=True)
class Query:
    """How the VXLAN device sends: from `source` by UDP to `port`."""

    source: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where packets to a peer go. `ifindex` 0: nowhere at the moment, and `reason` says why."""

    ifindex: int
    neighbour: IPv4Address | IPv6Address
    """On-link: the gateway, or the peer itself."""
    path_mtu: int = 0
    """The MTU of the route in bytes; 0: it has none, and the NIC's counts."""
    reason: str = ""
    is_own: bool = False
    """The address is this node's own."""
    spread: tuple[int, ...] = ()
    """Ifindexes of the NICs of an ECMP route. Empty: the route has one next hop."""


def resolve(
    netlink: NetlinkSocket, addresses: Iterable[IPv4Address], query: Query
) -> dict[IPv4Address, NextHop]:
    """The next hop towards each of `addresses`."""
    asked = list(addresses)
    # One request for the next hop that the kernel takes now, one for the whole route.
    answers, routes = (
        netlink.request([_question(address, query, flags) for address in asked])
        for flags in (0, rt.RTM_F_FIB_MATCH)
    )
    return {
        address: _next_hop(address, answer, route)
        for address, answer, route in zip(asked, answers, routes, strict=True)
    }


def _question(address: IPv4Address, query: Query, flags: int) -> Request:
    head = rt.RTMSG.pack(socket.AF_INET, 32, 32, 0, 0, 0, 0, 0, flags)
    target = attribute(rt.RTA_DST, address.packed)
    return Request(rt.RTM_GETROUTE, head + target + _conditions(query))


def _conditions(query: Query) -> bytes:
    conditions = attribute(rt.RTA_SRC, query.source.packed)
    conditions += attribute(rt.RTA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
    conditions += attribute(rt.RTA_DPORT, struct.pack("!H", query.port))
    return conditions


def _next_hop(address: IPv4Address, answer: bytes | int, route: bytes | int) -> NextHop:
    if isinstance(answer, int):
        name = errno.errorcode.get(answer, str(answer))
        return NextHop(0, address, reason=f"no route to {address} ({name})")
    kind = rt.RTMSG.unpack_from(answer)[7]
    found = attributes(answer, rt.RTMSG.size)
    if kind == rt.RTN_LOCAL:
        return NextHop(0, address, reason=f"{address} is this node's own address", is_own=True)
    if kind != rt.RTN_UNICAST or rt.RTA_OIF not in found:
        return NextHop(0, address, reason=f"the route to {address} is not a unicast one")
    return NextHop(
        ifindex=rt.U32.unpack(found[rt.RTA_OIF])[0],
        neighbour=_gateway(found) or address,
        path_mtu=_path_mtu(found),
        spread=() if isinstance(route, int) else _spread(attributes(route, rt.RTMSG.size)),
    )


def _gateway(found: dict[int, bytes]) -> IPv4Address | IPv6Address | None:
    """The router, which may have an IPv6 address alone. None: the peer is on the link."""
    if gateway := found.get(rt.RTA_GATEWAY):
        return IPv4Address(gateway)
    if via := found.get(rt.RTA_VIA):
        # struct rtvia (linux/rtnetlink.h): the family, then the address.
        return IPv6Address(via[2:])
    return None


def _spread(route: dict[int, bytes]) -> tuple[int, ...]:
    """The NICs of an ECMP route, which has a struct rtnexthop with attributes for each."""
    ways, nics = route.get(rt.RTA_MULTIPATH, b""), []
    while ways:
        length, _, _, nic = rt.RTNEXTHOP.unpack_from(ways)
        nics.append(nic)
        ways = ways[(length + 3) & ~3 :]
    return tuple(nics)


def _path_mtu(found: dict[int, bytes]) -> int:
    mtu = attributes(found.get(rt.RTA_METRICS, b""), 0).get(rt.RTAX_MTU)
    return int(rt.U32.unpack(mtu)[0]) if mtu else 0
