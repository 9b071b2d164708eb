# SPDX-License-Identifier: Apache-2.0
"""Who lives on the kernel path now: another owner of it, and pods."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import IPv4Network
from pathlib import Path

from vxlane.host.devices import Devices, explained

_OWNERS = frozenset({"flanneld", "k3s", "k3s-agent", "k3s-server"})
"""Names of processes that keep a flannel network; k3s has flannel inside."""

_TABLE_MAIN, _UNICAST = 254, 1


def owner() -> str:
    """Another backend of this network namespace, as "flanneld (process 123)"; empty: none runs."""
    here = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
            if name in _OWNERS and (process / "ns/net").readlink() == here:
                return f"{name} (process {process.name})"
    return ""


def pods(devices: Devices, network: IPv4Network) -> list[str]:
    """Names of the devices behind which addresses of `network` live on this node.

    The node reaches its own pods without a gateway: by a bridge, whose ports they are, or by a
    route to each (ptp). What goes by a gateway is another node's.
    """
    with explained("list routes"):
        routes = list(devices.netlink.get_routes(family=socket.AF_INET, table=_TABLE_MAIN))
    ways = {
        route.get_attr("RTA_OIF")
        for route in routes
        if route["type"] == _UNICAST
        and not route.get_attr("RTA_GATEWAY")
        and IPv4Network((route.get_attr("RTA_DST", "0.0.0.0"), route["dst_len"])).subnet_of(network)  # noqa: S104 (the default route's)
    }
    return sorted(
        device.name
        for device in devices.all().values()
        if device.master in ways or (device.index in ways and device.kind == "veth")
    )
