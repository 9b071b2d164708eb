# SPDX-License-Identifier: Apache-2.0
"""The way to each peer: which NIC and which on-link neighbour the kernel would send to now.

Asks the kernel itself (RTM_GETROUTE), so that policy routing, metrics and cached path MTUs count,
and asks as the VXLAN device does: UDP to its port, from its address, and through any NIC, for what
its forwarding entries lead to is not bound to its own. Only routes are resolved; the neighbour's
MAC is looked up by the programs as each packet leaves.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes

_GETROUTE = 26
_RTMSG = struct.Struct("=8BI")  # see entries
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS = 1, 2, 4, 5, 8
_RTA_IP_PROTO, _RTA_DPORT = 27, 29
_RTAX_MTU = 2
_UNICAST = 1
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Query:
    """How the VXLAN device sends: from `source` by UDP to `port`."""

    source: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class NextHop:
    """`ifindex` 0: there is no way now, and `reason` says why."""

    ifindex: int
    neighbour: IPv4Address
    """On-link: the gateway, or the peer itself."""
    path_mtu: int = 0
    """Bytes, where the route has one of its own; 0: the NIC's."""
    reason: str = ""


def resolve(
    netlink: NetlinkSocket, addresses: Iterable[IPv4Address], query: Query
) -> dict[IPv4Address, NextHop]:
    """The next hop towards each of `addresses`."""
    asked = list(addresses)
    tail = _conditions(query)
    answers = netlink.request([Request(_GETROUTE, _question(address) + tail) for address in asked])
    return {
        address: _next_hop(address, answer) for address, answer in zip(asked, answers, strict=True)
    }


def _question(address: IPv4Address) -> bytes:
    return _RTMSG.pack(socket.AF_INET, 32, 32, 0, 0, 0, 0, 0, 0) + attribute(
        _RTA_DST, address.packed
    )


def _conditions(query: Query) -> bytes:
    conditions = attribute(_RTA_SRC, query.source.packed)
    conditions += attribute(_RTA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
    conditions += attribute(_RTA_DPORT, struct.pack("!H", query.port))
    return conditions


def _next_hop(address: IPv4Address, answer: bytes | int) -> NextHop:
    if isinstance(answer, int):
        name = errno.errorcode.get(answer, str(answer))
        return NextHop(0, address, reason=f"no route to {address} ({name})")
    kind = _RTMSG.unpack_from(answer)[7]
    found = attributes(answer, _RTMSG.size)
    if kind != _UNICAST or _RTA_OIF not in found:
        return NextHop(0, address, reason=f"the route to {address} is not a unicast one")
    gateway = found.get(_RTA_GATEWAY)
    return NextHop(
        ifindex=_U32.unpack(found[_RTA_OIF])[0],
        neighbour=IPv4Address(gateway) if gateway else address,
        path_mtu=_path_mtu(found),
    )


def _path_mtu(found: dict[int, bytes]) -> int:
    mtu = attributes(found.get(_RTA_METRICS, b""), 0).get(_RTAX_MTU)
    return int(_U32.unpack(mtu)[0]) if mtu else 0
