# SPDX-License-Identifier: Apache-2.0
"""The other nodes, by the kernel's entries and by the bypass's map, and whether these agree.

Without an agent there is no map. A node that is reached without a tunnel is known by the map alone:
its route looks like any other.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from vxlane.datapath.abi import Way
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Peer
from vxlane.errors import OptionError
from vxlane.host import entries
from vxlane.host.devices import Devices
from vxlane.host.entries import Entries, Route
from vxlane.overlay.traced import TracedPeers
from vxlane.sources.model import Node


@dataclass(frozen=True, slots=True)
class Known:
    """What this node knows of another one."""

    cidr: IPv4Network
    kernel: Node | None
    """Where the kernel's route, neighbour and FDB entry lead together."""
    route: Route | None
    """The kernel's route to its pods, wherever that leads."""
    bypass: Peer | None
    name: str = ""
    """As the source of nodes has it; "" where no agent has saved one."""

    def __str__(self) -> str:
        return f"{self.name or self.address} {self.cidr}"

    @property
    def address(self) -> IPv4Address | None:
        """Of the node on the underlay; None: nothing leads there."""
        if self.kernel:
            return self.kernel.address
        return self.bypass.address if self.bypass else None  # type: ignore[return-value]

    @property
    def vtep(self) -> IPv4Address:
        """Its address on the overlay: flannel gives flannel.1 the first one of the node's CIDR."""
        return self.cidr.network_address

    @property
    def bridge(self) -> IPv4Address:
        """Its pods' gateway, which is there once the node has had a pod."""
        return self.cidr.network_address + 1


def read(maps: Maps | None, names: Mapping[IPv4Network, str]) -> list[Known]:
    """Every peer that the kernel's entries or `maps` know, in order of CIDRs."""
    mapped = maps.peers() if maps else {}
    nodes, routes = _kernel()
    cidrs = {cidr for cidr in (*mapped, *nodes) if isinstance(cidr, IPv4Network)}
    return [
        Known(cidr, nodes.get(cidr), routes.get(cidr), mapped.get(cidr), names.get(cidr, ""))
        for cidr in sorted(cidrs)
    ]


def _kernel() -> tuple[dict[IPv4Network, Node], dict[IPv4Network, Route]]:
    """The peers behind VXLAN devices, and all routes by a gateway, both by network."""
    nodes: dict[IPv4Network, Node] = {}
    found: Entries = {}
    with contextlib.closing(Devices()) as devices:
        found |= entries.read(devices.socket, 0)
        for device in devices.of_kind("vxlan"):
            of_device = entries.read(devices.socket, device.index)
            traced = TracedPeers(device.index)
            traced.follow(of_device, of_device)
            nodes |= {node.pod_cidr: node for node in traced.peers.values()}
    routes = {
        IPv4Network((entry.network, entry.prefix_len)): entry
        for entry in found.values()
        if isinstance(entry, Route)
    }
    return nodes, routes


def named(listed: list[Known], name: str) -> Known:
    """The peer of that name, underlay address, pod CIDR, address of a pod, or host name.

    OptionError: none of `listed` is it.
    """
    found = next((peer for peer in listed if peer.name == name), None) or _matching(listed, name)
    if found is None:
        # No host has that name either, or none can have: UnicodeError.
        with contextlib.suppress(OSError, UnicodeError):
            found = _matching(listed, socket.gethostbyname(name))
    if found is not None:
        return found
    shown = ", ".join(f"{peer.name or peer.address} ({peer.cidr})" for peer in listed)
    raise OptionError(f'this node knows no peer "{name}"; its peers are: {shown or "none"}')


def _matching(listed: list[Known], text: str) -> Known | None:
    try:
        wanted = IPv4Network(text)
    except ValueError:
        return None
    for peer in listed:
        if peer.address == wanted.network_address or wanted.subnet_of(peer.cidr):
            return peer
    return None


def fault(peer: Known) -> str:
    """What is wrong with the entries that lead to `peer`; "": nothing."""
    if peer.bypass and not peer.bypass.ifindex:
        return f"there is no usable way to {peer.bypass.address}"
    if peer.bypass and peer.bypass.way is Way.DIRECT:
        return _direct_fault(peer, peer.bypass)
    if peer.kernel is None:
        return f"no route, neighbour and FDB entry lead together to {peer.cidr}"
    if peer.bypass is None:
        return ""
    kernel = (peer.kernel.address, peer.kernel.vtep_mac)
    if kernel != (peer.bypass.address, peer.bypass.vtep_mac):
        return (
            f"the kernel sends to {kernel[1]} at {kernel[0]}, "
            f"the bypass to {peer.bypass.vtep_mac} at {peer.bypass.address}"
        )
    return ""


def _direct_fault(peer: Known, bypass: Peer) -> str:
    if peer.route is None:
        return f"there is no route to {peer.cidr}"
    gateway = IPv4Address(peer.route.gateway)
    if gateway != bypass.address:
        return f"the route goes by {gateway}, the bypass to {bypass.address}"
    return ""
