# SPDX-License-Identifier: Apache-2.0
"""In mode `adopt`: the device of this node that flanneld uses for the overlay now.

flanneld names its device after the VNI. When the VNI changes, it does not remove the old device.
With host-gw, and for peers that it routes to directly, there is no device but the NIC.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from vxlane.config import Config
from vxlane.errors import ConfigError
from vxlane.host import entries, vtep
from vxlane.host.devices import Device, Devices
from vxlane.host.entries import Route
from vxlane.host.underlay import Choice, choose

_TUNNEL = re.compile(r"flannel\.\d+")
"""IPv6's is flannel-v6.<VNI>."""


@dataclass(frozen=True, slots=True)
class LocalEnd:
    """This node's end of the overlay."""

    device: Device
    """flannel.<VNI>; the NIC where there is none (host-gw)."""
    wiring: vtep.Wiring
    is_tunnel: bool

    @property
    def tunnel(self) -> int:
        """Ifindex of flannel.<VNI>; 0: there is none."""
        return self.device.index if self.is_tunnel else 0


def find(devices: Devices, config: Config, *, network: IPv4Network | None) -> LocalEnd:
    """The device that routes lead over now. `network` is that of all pods; None: not known.

    ConfigError: there is neither a flannel device nor a route to pods of another node.
    """
    tunnels = _tunnels(devices)
    if len(tunnels) == 1:
        return tunnels[0]
    routes = [it for it in entries.read(devices.socket, 0).values() if isinstance(it, Route)]
    if tunnels:
        return in_use(tunnels, routes, vni=config.network.vni)
    plain = (it for it in routes if it.is_plain and it.leads_into(network))
    if first := next(plain, None):
        return _nic(devices, config, IPv4Address(first.gateway))
    name = vtep.name_of(config.network.vni)
    advice = "no host-gw route either; is flanneld or k3s running? it is waited for"
    raise ConfigError(f"there is no VXLAN device {name} to adopt, and {advice}")


def in_use(tunnels: Sequence[LocalEnd], routes: Iterable[Route], *, vni: int) -> LocalEnd:
    """The one of `tunnels` that most of `routes` lead over. Among equals it is the one with `vni`,
    or else the newest.
    """
    led = Counter(route.device for route in routes)
    return max(tunnels, key=lambda end: (led[end.tunnel], end.wiring.vni == vni, end.tunnel))


def _tunnels(devices: Devices) -> list[LocalEnd]:
    """All VXLAN devices that have a name of flannel's."""
    found = []
    for device in devices.of_kind("vxlan"):
        wiring = vtep.wiring_of(devices, device.name) if _TUNNEL.fullmatch(device.name) else None
        if wiring:
            found.append(LocalEnd(device, wiring, is_tunnel=True))
    return found


def _nic(devices: Devices, config: Config, gateway: IPv4Address) -> LocalEnd:
    """The NIC that was asked for, else that towards `gateway`."""
    asked = config.choice
    underlay = choose(devices, asked if asked != Choice() else Choice(can_reach=gateway))
    network = config.network
    wiring = vtep.Wiring(network.vni, network.port, underlay.address, underlay.device.index)
    return LocalEnd(underlay.device, wiring, is_tunnel=False)
