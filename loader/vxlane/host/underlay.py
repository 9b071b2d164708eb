# SPDX-License-Identifier: Apache-2.0
"""The interface that carries the overlay, chosen as flannel chooses it."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.errors import ConfigError
from vxlane.host.devices import Device, Devices, explained


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person asked for, in order of preference. Empty: the default route's interface."""

    interfaces: tuple[str, ...] = ()
    """Names or addresses."""
    patterns: tuple[re.Pattern[str], ...] = ()
    """Regular expressions, tried on addresses, then on names."""
    can_reach: IPv4Address | None = None
    public: IPv4Address | None = None
    """The address that peers send to, if it is not the interface's own."""


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface, and the address that this node's packets carry on it."""

    device: Device
    address: IPv4Address
    public: IPv4Address | None = None
    """What a NAT between the nodes makes of `address`, and of which no interface knows."""

    @property
    def announced(self) -> IPv4Address:
        """The address that peers send to."""
        return self.public or self.address


def choose(devices: Devices, choice: Choice) -> Underlay:
    """The interface that `choice` names. ConfigError: there is none, or it has no address."""
    holder = devices.holder(choice.public) if choice.public else None
    if choice.public and not (choice.interfaces or choice.patterns or choice.can_reach):
        if holder:
            return Underlay(holder, choice.public)
        raise ConfigError(f"no interface has the address {choice.public}; name one with --iface")
    device, address = _found(devices, choice)
    if choice.public and holder and holder.index == device.index:
        return Underlay(device, choice.public)
    return Underlay(device, address or _first_address(devices, device), choice.public)


def _found(devices: Devices, choice: Choice) -> tuple[Device, IPv4Address | None]:
    for wanted in choice.interfaces:
        if found := _named(devices, wanted):
            return found
    for pattern in choice.patterns:
        if found := _matching(devices, pattern):
            return found
    if choice.interfaces or choice.patterns:
        patterns = tuple(pattern.pattern for pattern in choice.patterns)
        asked = ", ".join(choice.interfaces + patterns)
        raise ConfigError(f"no interface is named, addressed or matched by {asked}; see 'ip addr'")
    if choice.can_reach:
        return _towards(devices, choice.can_reach)
    return _default(devices)


def _named(devices: Devices, wanted: str) -> tuple[Device, IPv4Address | None] | None:
    try:
        address = IPv4Address(wanted)
    except ValueError:
        device = devices.by_name(wanted)
        return (device, None) if device else None
    holder = devices.holder(address)
    return (holder, address) if holder else None


def _matching(
    devices: Devices, pattern: re.Pattern[str]
) -> tuple[Device, IPv4Address | None] | None:
    for interface in devices.addresses():
        if pattern.search(str(interface.ip)) and (device := devices.holder(interface.ip)):
            return device, interface.ip
    for device in devices.all().values():
        if pattern.search(device.name):
            return device, None
    return None


def _towards(devices: Devices, address: IPv4Address) -> tuple[Device, IPv4Address | None]:
    """The interface, and our address, that packets to `address` leave by."""
    with explained(f"find the route to {address}", "--iface-can-reach needs a reachable address"):
        route = devices.netlink.route("get", dst=str(address))[0]
    device = devices.by_index(route.get_attr("RTA_OIF"))
    source = route.get_attr("RTA_PREFSRC")
    if device is None:
        raise ConfigError(f"{address} is not reached through an interface; name one with --iface")
    return device, IPv4Address(source) if source else None


def _default(devices: Devices) -> tuple[Device, IPv4Address | None]:
    with explained("read the default route"):
        routes = list(devices.netlink.get_default_routes(family=socket.AF_INET))
    for route in sorted(routes, key=lambda route: route.get_attr("RTA_PRIORITY") or 0):
        if device := devices.by_index(route.get_attr("RTA_OIF") or 0):
            return device, None
    raise ConfigError("there is no default route to take the interface from; name one with --iface")


def _first_address(devices: Devices, device: Device) -> IPv4Address:
    for interface in devices.addresses(device.index):
        if not interface.ip.is_loopback:
            return interface.ip
    raise ConfigError(f"interface {device.name} has no IPv4 address; name another with --iface")
