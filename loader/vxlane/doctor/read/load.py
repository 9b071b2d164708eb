# SPDX-License-Identifier: Apache-2.0
"""Reads what the node carries and what that costs, for a comparison of two spans of time."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from vxlane.doctor.load import Reading
from vxlane.host import machine
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attributes

_CONNTRACK = Path("/proc/thread-self/net/stat/nf_conntrack")
_LINK = struct.Struct("=8Q")  # struct rtnl_link_stats64: packets, bytes, errors, dropped; rx, tx
_LOSSES = ("drop", "early_drop", "insert_failed")


def reading(netlink: NetlinkSocket, nic: int) -> Reading:
    """The counters as they are now; `nic` is the ifindex of the device to the other nodes."""
    packets, octets, lost = _nic(netlink, nic)
    connections, counters = _connections(), machine.read()
    return Reading(
        seconds=time.monotonic(),
        packets=packets,
        octets=octets,
        lost=lost + counters.dropped + sum(connections.get(name, 0) for name in _LOSSES),
        invalid=connections.get("invalid", 0),
        kernel_seconds=counters.seconds("system", "irq", "softirq"),
    )


def _nic(netlink: NetlinkSocket, nic: int) -> tuple[int, int, int]:
    """Packets, bytes, and packets that were lost or broken; zeros where there is no such device."""
    body = rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, nic, 0, 0)
    (answer,) = netlink.request([Request(rt.RTM_GETLINK, body)])
    if isinstance(answer, int):
        return 0, 0, 0
    counted = _LINK.unpack_from(attributes(answer, rt.IFINFOMSG.size)[rt.IFLA_STATS64])
    return counted[0] + counted[1], counted[2] + counted[3], sum(counted[4:])


def _connections() -> dict[str, int]:
    """Counters of conntrack by name, over all CPUs; empty without conntrack."""
    try:
        head, *lines = _CONNTRACK.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return {}
    rows = [[int(number, 16) for number in line.split()] for line in lines]
    return dict(zip(head.split(), map(sum, zip(*rows, strict=True)), strict=False))
