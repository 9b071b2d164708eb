# SPDX-License-Identifier: Apache-2.0
"""Reads the other end of a veth, which may be in another network namespace.

The request names that namespace by the id that the kernel gave it when the veth was made, so no
namespace is entered. Imports netlink only.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes, text_of


@dataclass(frozen=True, slots=True)
class FarEnd:
    """A device in another network namespace."""

    ifindex: int
    """In its own namespace."""
    name: str
    mac: str
    """Lower-case, with colons."""
    has_xdp: bool
    nsid: int = -1
    """This namespace's id of the other one."""


def far_end(netlink: NetlinkSocket, near_ifindex: int) -> FarEnd | None:
    """The other end of the veth `near_ifindex`; None: it is gone, or in this namespace."""
    near = _link(netlink, near_ifindex, b"")
    if near is None or rt.IFLA_LINK not in near or rt.IFLA_LINK_NETNSID not in near:
        return None
    there = attribute(rt.IFLA_TARGET_NETNSID, near[rt.IFLA_LINK_NETNSID])
    ifindex = int(rt.S32.unpack(near[rt.IFLA_LINK])[0])
    far = _link(netlink, ifindex, there)
    if far is None:
        return None
    name = text_of(far[rt.IFLA_IFNAME])
    nsid = int(rt.S32.unpack(near[rt.IFLA_LINK_NETNSID])[0])
    return FarEnd(ifindex, name, far[rt.IFLA_ADDRESS].hex(":"), _has_xdp(far), nsid)


def leads_elsewhere(netlink: NetlinkSocket, end: FarEnd, namespace: Path) -> bool:
    """Whether `end` is in another namespace than the one that the file `namespace` holds.

    False if that can't be determined: in a container the file may be missing, and pids in /proc
    are those of other processes.
    """
    if not namespace.is_absolute() or namespace.is_relative_to("/proc"):
        return False
    try:
        # Another kind of file, such as a FIFO, must not block.
        file = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        named = rt.RTGENMSG.pack(socket.AF_UNSPEC) + attribute(rt.NETNSA_FD, rt.S32.pack(file))
        (answer,) = netlink.request([Request(rt.RTM_GETNSID, named)])
    finally:
        os.close(file)
    if isinstance(answer, int):
        return True  # it is not a namespace
    found = attributes(answer, rt.RTGENMSG.size).get(rt.NETNSA_NSID, b"")
    return int(rt.S32.unpack(found)[0]) != end.nsid


def root_qdisc(netlink: NetlinkSocket, ifindex: int) -> str:
    """The kind of a device's root qdisc, such as "tbf"; "noqueue" if it has none."""
    device = _link(netlink, ifindex, b"") or {}
    return text_of(device.get(rt.IFLA_QDISC, b"noqueue"))


def has_xdp(netlink: NetlinkSocket, ifindex: int) -> bool:
    """Whether a device has an XDP program, generic or native. One that is gone has none."""
    return _has_xdp(_link(netlink, ifindex, b"") or {})


def _has_xdp(device: dict[int, bytes]) -> bool:
    return any(attributes(device.get(rt.IFLA_XDP, b""), 0).get(rt.IFLA_XDP_ATTACHED, b""))


def _link(netlink: NetlinkSocket, ifindex: int, where: bytes) -> dict[int, bytes] | None:
    """A device's attributes, None when there is no such device."""
    body = rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + where
    (answer,) = netlink.request([Request(rt.RTM_GETLINK, body)])
    return attributes(answer, rt.IFINFOMSG.size) if isinstance(answer, bytes) else None
