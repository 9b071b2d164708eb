# SPDX-License-Identifier: Apache-2.0
"""Reads what pods have sent and received from the counters of the pods' ends of their veths.

The host's end does not see packets that bpf_redirect_peer() puts into the pod. The pod's end
counts them from Linux 6.7 on (dev_sw_netstats_rx_add() in skb_do_redirect()). Before that, no
device counts what a pod receives by the bypass. No namespace is entered.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes

_STATS64 = struct.Struct("=4Q")
"""The first members of struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Since the veth was made. tx is what the pod sent, rx what it received."""

    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int


class PodTraffic:
    """Reads many pods' traffic again and again (9 ms for 250); remembers where the far ends are."""

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink
        self._far: dict[int, tuple[int, bytes]] = {}
        """Of a host end: the far end's ifindex, and the attribute that names its namespace."""

    def read(self, ifindexes: Iterable[int]) -> dict[int, Traffic]:
        """The traffic by the ifindex of the veth's host end. Veths that are gone are left out."""
        asked = set(ifindexes)
        near = _links(self._netlink, {one: (one, b"") for one in asked - self._far.keys()})
        self._far |= {
            ifindex: (
                rt.S32.unpack(link[rt.IFLA_LINK])[0],
                attribute(rt.IFLA_TARGET_NETNSID, link[rt.IFLA_LINK_NETNSID]),
            )
            for ifindex, link in near.items()
            if rt.IFLA_LINK in link and rt.IFLA_LINK_NETNSID in link
        }
        links = _links(self._netlink, {one: self._far[one] for one in asked & self._far.keys()})
        # A veth that does not answer is gone. A later one with its ifindex has another far end.
        self._far = {ifindex: self._far[ifindex] for ifindex in links}
        return {ifindex: _traffic(link) for ifindex, link in links.items()}


def _traffic(link: Mapping[int, bytes]) -> Traffic:
    rx_packets, tx_packets, rx_bytes, tx_bytes = _STATS64.unpack_from(link[rt.IFLA_STATS64])
    return Traffic(tx_packets, tx_bytes, rx_packets, rx_bytes)


def _links(
    netlink: NetlinkSocket, wanted: Mapping[int, tuple[int, bytes]]
) -> dict[int, dict[int, bytes]]:
    """The attributes of devices, each asked for by its ifindex and where that is one."""
    requests = [
        Request(rt.RTM_GETLINK, rt.IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + where)
        for ifindex, where in wanted.values()
    ]
    answers = zip(wanted, netlink.request(requests), strict=True)
    return {
        key: attributes(body, rt.IFINFOMSG.size) for key, body in answers if isinstance(body, bytes)
    }
