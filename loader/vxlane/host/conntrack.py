# SPDX-License-Identifier: Apache-2.0
"""What the agent asks of conntrack, and what it changes in entries of bypassed connections.

conntrack closes an entry on a RST only if the RST's sequence number is the one that it expects
(net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet). It has seen only a few packets of
a bypassed connection, so the entry would stay ESTABLISHED for five days. The programs note flows
that were reset, and this module gives their entries the state and timeout that a RST on the kernel
path would give them.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, group_mask, nested
from vxlane.util.five_tuple import FiveTuple

_ADDRESSES = {
    4: (nf.CTA_IP_V4_SRC, nf.CTA_IP_V4_DST),
    6: (nf.CTA_IP_V6_SRC, nf.CTA_IP_V6_DST),
}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_UPDATES = group_mask(nf.NFNLGRP_CONNTRACK_UPDATE)


def shortest_timeout(*states: str) -> float:
    """The shortest of conntrack's timeouts for `states`, in seconds. Infinity without conntrack."""
    return min(
        (float(found.read_text()) for found in map(_setting, states) if found.exists()),
        default=math.inf,
    )


def is_heard() -> bool:
    """Whether a socket of this network namespace listens to changes of conntrack's entries.

    /proc/net/netlink has each socket's protocol and its first 32 groups (net/netlink/af_netlink.c).
    """
    sockets = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return any(
        int(protocol) == nf.NETLINK_NETFILTER and int(groups, 16) & _UPDATES
        for _, protocol, _, groups, *_ in map(str.split, sockets)
    )


def close_connections(connections: Iterable[FiveTuple]) -> None:
    """Set the entries of `connections` to CLOSE. An entry that is gone is no error."""
    closed = attribute(nf.CTA_PROTOINFO_TCP_STATE, bytes([nf.TCP_CONNTRACK_CLOSE]))
    change = nested(nf.CTA_PROTOINFO, nested(nf.CTA_PROTOINFO_TCP, closed))
    change += _timeout(int(_setting("tcp_timeout_close").read_text()))
    _write(_entry(connection) + change for connection in connections)


def keep_connections(silences: Iterable[tuple[FiveTuple, float]]) -> None:
    """Set the timeouts of idle connections to those of established ones.

    `silences` has the seconds since each connection's last packet, which are subtracted.
    """
    timeout = int(_setting("tcp_timeout_established").read_text())
    _write(
        _entry(connection) + _timeout(round(timeout - silence))
        for connection, silence in silences
        if silence < timeout
    )


def _write(entries: Iterable[bytes]) -> None:
    """Change entries. Each has the tuple that selects it and the attributes to set."""
    netlink = NetlinkSocket(nf.NETLINK_NETFILTER)
    try:
        netlink.write([Request(nf.IPCTNL_MSG_CT_NEW, entry) for entry in entries])
    finally:
        netlink.close()


def _timeout(seconds: int) -> bytes:
    return attribute(nf.CTA_TIMEOUT, struct.pack(">I", seconds))


def _setting(name: str) -> Path:
    return Path(f"/proc/sys/net/netfilter/nf_conntrack_{name}")


def _entry(connection: FiveTuple) -> bytes:
    """The attributes that select an entry. The kernel finds it by the tuple of either direction."""
    family = _FAMILY[connection.local.version]
    return nf.NFGENMSG.pack(family, 0, 0) + nested(nf.CTA_TUPLE_ORIG, tuple_attributes(connection))


def tuple_attributes(connection: FiveTuple) -> bytes:
    """The tuple of an entry, of either direction. For an ICMP echo the five-tuple has identifier
    and type in place of the ports.
    """
    source, destination = _ADDRESSES[connection.local.version]
    addresses = attribute(source, connection.local.packed)
    addresses += attribute(destination, connection.remote.packed)
    ports = attribute(nf.CTA_PROTO_NUM, bytes([connection.protocol]))
    if connection.protocol == socket.IPPROTO_ICMP:
        ports += attribute(nf.CTA_PROTO_ICMP_ID, struct.pack(">H", connection.local_port))
        ports += attribute(nf.CTA_PROTO_ICMP_TYPE, bytes([connection.remote_port]))
        ports += attribute(nf.CTA_PROTO_ICMP_CODE, b"\0")
    else:
        ports += attribute(nf.CTA_PROTO_SRC_PORT, struct.pack(">H", connection.local_port))
        ports += attribute(nf.CTA_PROTO_DST_PORT, struct.pack(">H", connection.remote_port))
    return nested(nf.CTA_TUPLE_IP, addresses) + nested(nf.CTA_TUPLE_PROTO, ports)
