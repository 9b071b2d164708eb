# SPDX-License-Identifier: Apache-2.0
"""Connections of local pods that are still bound to a mechanism whose rule may be gone.

A helper reads them, SYNPROXY shifts their sequence numbers, or a flowtable carries them. The kernel
selects such entries by their status from Linux 5.15 on. Older kernels list all entries.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from vxlane.errors import KernelError
from vxlane.mechanisms.kinds import Finding, Kind, Scope
from vxlane.mechanisms.packet import View
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes

_STATUS = {
    nf.IPS_SEQ_ADJUST: Kind.SYNPROXY,
    nf.IPS_HELPER: Kind.HELPER,
    nf.IPS_OFFLOAD: Kind.FLOWTABLE,
}
_AUTOMATIC = Path("/proc/sys/net/netfilter/nf_conntrack_helper")
"""Up to Linux 6.0 this sysctl gives helpers to connections by port, without a rule."""


class ConntrackReader:
    """Reads conntrack in this thread's network namespace."""

    def __init__(self) -> None:
        self._netlink = NetlinkSocket(nf.NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def findings(self, view: View) -> tuple[Finding, ...]:
        """What binds connections of pods. Each finding is about one local pod."""
        found = dict.fromkeys(
            Finding(kind, "conntrack", scope)
            for status, kind in _STATUS.items()
            for scope in self._scopes(status, view)
        )
        if _is_automatic():
            found[Finding(Kind.HELPER, "sysctl net.netfilter.nf_conntrack_helper")] = None
        return tuple(found)

    def _scopes(self, status: int, view: View) -> Iterator[Scope]:
        wanted = rt.BE32.pack(status)
        body = nf.NFGENMSG.pack(socket.AF_INET, 0, 0)
        body += attribute(nf.CTA_STATUS, wanted) + attribute(nf.CTA_STATUS_MASK, wanted)
        first, last = int(view.local.network_address), int(view.local.broadcast_address)
        for entry in self._dump(Request(nf.IPCTNL_MSG_CT_GET, body)):
            found = attributes(entry, nf.NFGENMSG.size)
            if not rt.BE32.unpack(found[nf.CTA_STATUS])[0] & status:
                continue
            # A translated connection's destination is the one that answers.
            source, destination = (
                _source(found[of]) for of in (nf.CTA_TUPLE_ORIG, nf.CTA_TUPLE_REPLY)
            )
            if first <= source <= last:
                yield Scope(sources=((source, source),))
            elif first <= destination <= last:
                yield Scope(destinations=((destination, destination),))

    def _dump(self, request: Request) -> list[bytes]:
        try:
            return self._netlink.dump(request)
        except KernelError as error:
            if error.errno == errno.EINVAL:
                return []  # this kernel has no conntrack
            raise


def _source(connection: bytes) -> int:
    ends = attributes(attributes(connection, 0)[nf.CTA_TUPLE_IP], 0)
    return int(rt.BE32.unpack(ends[nf.CTA_IP_V4_SRC])[0])


def _is_automatic() -> bool:
    try:
        return _AUTOMATIC.read_text().strip() == "1"
    except OSError:
        return False
