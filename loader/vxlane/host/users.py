# SPDX-License-Identifier: Apache-2.0
"""Finds the users of the kernel path: another backend that makes it, and pods."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Network
from pathlib import Path

from vxlane.host.devices import Devices, explained
from vxlane.netlink import rtnetlink as rt

_OWNERS = frozenset({"flanneld", "k3s", "k3s-agent", "k3s-server"})
"""Names of processes that keep a flannel network; k3s has flannel inside."""


def owner() -> str:
    """Another backend in this network namespace, as "flanneld (process 123)". Empty: none runs."""
    here = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name in _OWNERS and (process / "ns/net").readlink() == here:
                return f"{name} (process {process.name})"
    return ""


def pods(devices: Devices, network: IPv4Network) -> list[str]:
    """The names of this node's devices that lead to pods of `network`.

    A node reaches its own pods without a gateway: by the bridge whose ports are their veths, or by
    a route to each (ptp). A route with a gateway leads to another node's pods.
    """
    with explained("list routes"):
        routes = list(devices.netlink.get_routes(family=socket.AF_INET, table=rt.RT_TABLE_MAIN))
    exits = {
        route.get_attr("RTA_OIF")
        for route in routes
        if route["type"] == rt.RTN_UNICAST
        and not route.get_attr("RTA_GATEWAY")
        and IPv4Network((route.get_attr("RTA_DST", "0.0.0.0"), route["dst_len"])).subnet_of(network)  # noqa: S104 (the default route's)
    }
    return sorted(
        device.name
        for device in devices.all().values()
        if device.master in exits or (device.index in exits and device.kind == "veth")
    )
