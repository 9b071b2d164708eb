# SPDX-License-Identifier: Apache-2.0
"""Reads conntrack's entries, and never changes them.

An entry has two tuples: that of packets from the side that opened the connection, and that of the
replies. One is not the reverse of the other if netfilter translates the connection.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.errors import KernelError
from vxlane.host import sysctls
from vxlane.host.conntrack import tuple_attributes
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes, nested
from vxlane.util.five_tuple import FiveTuple

_BE16, _BE32, _BE64 = struct.Struct("!H"), struct.Struct("!I"), struct.Struct("!Q")
_HEAD = nf.NFGENMSG.pack(socket.AF_INET, 0, 0)
_ABSENT = frozenset({errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP})

TCP_STATES = (
    *("none", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait"),
    *("last_ack", "time_wait", "close", "syn_sent2"),
)
"""The kernel's enum tcp_conntrack, by number."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What conntrack has counted of one connection, in both directions."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Connection:
    """One IPv4 entry. In both tuples `local` is the sender of the packets."""

    original: FiveTuple
    reply: FiveTuple
    state: str
    """One of `TCP_STATES`; empty for other protocols."""
    is_answered: bool
    is_assured: bool
    """For UDP: it has lasted for 2 s or more, and has the longer timeout (Linux's stream_ts)."""
    timeout: int
    """Seconds until conntrack forgets it."""
    traffic: Traffic | None
    """None: conntrack does not count (nf_conntrack_acct is 0, or was when the entry began)."""


def counts() -> bool:
    """Whether conntrack counts the packets of connections that begin now."""
    return _number("nf_conntrack_acct") == 1


def _timeout_name(connection: Connection) -> str:
    if connection.state:
        return f"tcp_timeout_{connection.state}"
    if connection.original.protocol == socket.IPPROTO_UDP:
        return "udp_timeout_stream" if connection.is_assured else "udp_timeout"
    return "icmp_timeout"


def _number(setting: str) -> int | None:
    value = sysctls.read(f"net.netfilter.{setting}")
    return int(value) if value else None


class ConnectionReader:
    """Reads conntrack in this thread's network namespace."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(nf.NETLINK_NETFILTER)
        self._timeouts: dict[str, int | None] = {}

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def find(self, sent: FiveTuple) -> Connection | None:
        """The entry of packets with this 5-tuple, in either direction. None: there is none."""
        body = _HEAD + nested(nf.CTA_TUPLE_ORIG, tuple_attributes(sent))
        (answer,) = self._netlink.request([Request(nf.IPCTNL_MSG_CT_GET, body)])
        return _connection(answer) if isinstance(answer, bytes) else None

    def between(self, source: IPv4Address, destination: IPv4Address) -> Iterator[Connection]:
        """The entries of connections that `source` opened to `destination`.

        The kernel selects them from Linux 5.8 on.
        """
        flags = nf.CTA_FILTER_F_CTA_IP_SRC | nf.CTA_FILTER_F_CTA_IP_DST
        body = _HEAD + nested(
            nf.CTA_TUPLE_ORIG, nested(nf.CTA_TUPLE_IP, _ends(source, destination))
        )
        wanted = attribute(nf.CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
        body += nested(nf.CTA_FILTER, wanted)
        ends = source, destination
        for connection in self._dump(body):
            if (connection.original.local, connection.original.remote) == ends:
                yield connection

    def all(self) -> Iterable[Connection]:
        """Every entry of IPv4."""
        return self._dump(_HEAD)

    def idle_seconds(self, connection: Connection) -> int | None:
        """Seconds since netfilter saw its last packet. None: its timeout is not from a sysctl."""
        name = f"nf_conntrack_{_timeout_name(connection)}"
        if name not in self._timeouts:
            self._timeouts[name] = _number(name)
        full = self._timeouts[name]
        return full - connection.timeout if full and full >= connection.timeout else None

    def _dump(self, body: bytes) -> Iterator[Connection]:
        try:
            entries = self._netlink.dump(Request(nf.IPCTNL_MSG_CT_GET, body))
        except KernelError as error:
            if error.errno in _ABSENT:
                return  # this kernel has no conntrack, or has followed nothing here yet
            raise
        yield from filter(None, map(_connection, entries))


def _ends(source: IPv4Address, destination: IPv4Address) -> bytes:
    return attribute(nf.CTA_IP_V4_SRC, source.packed) + attribute(
        nf.CTA_IP_V4_DST, destination.packed
    )


def _connection(entry: bytes) -> Connection | None:
    """None: an entry of IPv6, or of a protocol with neither ports nor an identifier."""
    found = attributes(entry, nf.NFGENMSG.size)
    original, reply = (
        _five_tuple(found.get(of, b"")) for of in (nf.CTA_TUPLE_ORIG, nf.CTA_TUPLE_REPLY)
    )
    if not original or not reply:
        return None
    status = _BE32.unpack(found[nf.CTA_STATUS])[0]
    info = attributes(attributes(found.get(nf.CTA_PROTOINFO, b""), 0).get(1, b""), 0)
    is_tcp = original.protocol == socket.IPPROTO_TCP
    number = info.get(nf.CTA_PROTOINFO_TCP_STATE, b"\0")[0]
    return Connection(
        original,
        reply,
        TCP_STATES[number] if is_tcp and number < len(TCP_STATES) else "",
        bool(status & nf.IPS_SEEN_REPLY),
        bool(status & nf.IPS_ASSURED),
        _BE32.unpack(found[nf.CTA_TIMEOUT])[0] if nf.CTA_TIMEOUT in found else 0,
        _traffic(found),
    )


def _five_tuple(body: bytes) -> FiveTuple | None:
    parts = attributes(body, 0)
    addresses = attributes(parts.get(nf.CTA_TUPLE_IP, b""), 0)
    ports = attributes(parts.get(nf.CTA_TUPLE_PROTO, b""), 0)
    if nf.CTA_IP_V4_SRC not in addresses:
        return None
    if nf.CTA_PROTO_ICMP_ID in ports:
        first = _BE16.unpack(ports[nf.CTA_PROTO_ICMP_ID])[0]
        second = ports[nf.CTA_PROTO_ICMP_TYPE][0]
    elif nf.CTA_PROTO_SRC_PORT in ports:
        first = _BE16.unpack(ports[nf.CTA_PROTO_SRC_PORT])[0]
        second = _BE16.unpack(ports[nf.CTA_PROTO_DST_PORT])[0]
    else:
        return None
    return FiveTuple(
        IPv4Address(addresses[nf.CTA_IP_V4_SRC]),
        IPv4Address(addresses[nf.CTA_IP_V4_DST]),
        first,
        second,
        ports[nf.CTA_PROTO_NUM][0],
    )


def _traffic(found: dict[int, bytes]) -> Traffic | None:
    counted = [
        attributes(found[of], 0)
        for of in (nf.CTA_COUNTERS_ORIG, nf.CTA_COUNTERS_REPLY)
        if of in found
    ]
    if not counted:
        return None
    sums = (
        sum(_BE64.unpack(each[what])[0] for each in counted)
        for what in (nf.CTA_COUNTERS_PACKETS, nf.CTA_COUNTERS_BYTES)
    )
    return Traffic(*sums)
