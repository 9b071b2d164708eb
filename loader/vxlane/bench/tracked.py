# SPDX-License-Identifier: Apache-2.0
"""Empties conntrack's tables of a lab's nodes, so that no measurement meets another one's entries.

A connection leaves an entry for two minutes, and its tunnels leave more on stock nodes. After
fifteen measurements of a second their table of 262,144 was full, and the kernel dropped packets.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from vxlane.errors import KernelError
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import NetlinkSocket, Request
from vxlane.runtime import netns

# Without a tuple it means all entries (ctnetlink_del_conntrack() in nf_conntrack_netlink.c).
_ALL = Request(nf.IPCTNL_MSG_CT_DELETE, nf.NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))


def forget(nodes: Iterable[str]) -> None:
    """Forget all connections of these namespaces. KernelError: the kernel refuses."""
    for node in nodes:
        with netns.entered(netns.path(node)):
            netlink = NetlinkSocket(nf.NETLINK_NETFILTER)
        with contextlib.closing(netlink):
            (code,) = netlink.write([_ALL])
        if code:
            raise KernelError(f"empty conntrack's table of {node}", code)
