# SPDX-License-Identifier: Apache-2.0
"""Tell conntrack what it could not see of a bypassed TCP connection.

It closes an entry on a RST only when the RST's sequence number is the very one it expects
(net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet). Of a bypassed connection it has
seen a few packets, so the entry would stay ESTABLISHED for five days. The programs note such
flows; this sets their entries to the state and the timeout that a RST leads to on the kernel path.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from vxlane.netlink.socket import NetlinkSocket, Request, attribute
from vxlane.util.five_tuple import FiveTuple

_NETLINK_NETFILTER = 12
_CT_NEW = 1 << 8  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW: also changes an entry that is there
_TUPLE_ORIG, _PROTOINFO, _TIMEOUT = 1, 4, 7
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE = {4: 1, 6: 3}
_PROTO_NUMBER, _PROTO_SOURCE, _PROTO_DESTINATION = 1, 2, 3
_PROTOINFO_TCP, _TCP_STATE, _TCP_FLAGS = 1, 1, (4, 5)  # flags: original, reply
_NESTED = 0x8000
_CLOSE = 8  # enum tcp_conntrack
_BE_LIBERAL = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def shortest_timeout(*states: str) -> float:
    """How long conntrack keeps an entry that is silent, seconds: the shortest of `states`.

    For ever, where there is no conntrack.
    """
    return min(
        (float(found.read_text()) for found in map(_setting, states) if found.exists()),
        default=math.inf,
    )


def close_connections(connections: Iterable[FiveTuple]) -> None:
    """Set the entries of `connections` to CLOSE; one that is gone already is no error."""
    timeout = struct.pack(">I", int(_setting("tcp_timeout_close").read_text()))
    state = attribute(_TCP_STATE, bytes([_CLOSE]))
    _update(connections, state, attribute(_TIMEOUT, timeout))


def make_lenient(connections: Iterable[FiveTuple]) -> None:
    """Let the entries of `connections` accept any window, for as long as they live.

    What nf_conntrack_tcp_be_liberal does for all: once that is off again, a connection that was
    bypassed for a while would be INVALID, for its windows have moved on unseen.
    """
    lenient = bytes([_BE_LIBERAL, _BE_LIBERAL])  # value and mask
    _update(connections, b"".join(attribute(way, lenient) for way in _TCP_FLAGS), b"")


def _update(connections: Iterable[FiveTuple], tcp: bytes, others: bytes) -> None:
    """Change each connection's entry: its TCP part and other attributes."""
    change = attribute(_PROTOINFO | _NESTED, attribute(_PROTOINFO_TCP | _NESTED, tcp)) + others
    netlink = NetlinkSocket(_NETLINK_NETFILTER)
    try:
        netlink.write([Request(_CT_NEW, _entry(each) + change) for each in connections])
    finally:
        netlink.close()


def _setting(name: str) -> Path:
    return Path(f"/proc/sys/net/netfilter/nf_conntrack_{name}")


def _entry(connection: FiveTuple) -> bytes:
    """Which entry is meant; it is found by the tuple of either direction."""
    family = _FAMILY[connection.local.version]
    return struct.pack(">BBH", family, 0, 0) + attribute(_TUPLE_ORIG | _NESTED, _tuple(connection))


def _tuple(connection: FiveTuple) -> bytes:
    source = _IP_SOURCE[connection.local.version]
    addresses = attribute(source, connection.local.packed)
    addresses += attribute(source + 1, connection.remote.packed)
    ports = attribute(_PROTO_NUMBER, bytes([connection.protocol]))
    ports += attribute(_PROTO_SOURCE, struct.pack(">H", connection.local_port))
    ports += attribute(_PROTO_DESTINATION, struct.pack(">H", connection.remote_port))
    return attribute(_TUPLE_IP | _NESTED, addresses) + attribute(_TUPLE_PROTO | _NESTED, ports)
