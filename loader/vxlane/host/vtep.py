# SPDX-License-Identifier: Apache-2.0
"""The VXLAN device, flannel.<VNI>: read, compared with the wanted one, and changed.

MAC, MTU, addresses and state are changed in place. For any other difference the device is replaced,
and the caller writes its routes, neighbours and FDB entries again.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from vxlane.errors import KernelError
from vxlane.host import sysctls
from vxlane.host.devices import Device, Devices, explained

OVERHEAD = 14 + 8 + 8 + 20
"""Bytes that VXLAN over IPv4 adds to an inner IP packet: Ethernet, VXLAN, UDP, IP. The programs
sum up the same headers by sizeof (bpf/vxlan.h)."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """The properties of a VXLAN device that can't be changed once it is made."""

    vni: int
    port: int
    local: IPv4Address
    underlay: int
    """Ifindex of the NIC it sends through; 0: the route decides."""
    learns: bool = False
    is_gbp: bool = False


@dataclass(frozen=True, slots=True)
class Vtep:
    """A VXLAN device, present or wanted."""

    name: str
    wiring: Wiring
    mac: str
    mtu: int
    address: IPv4Address
    """Its /32: the first address of the node's pod CIDR."""
    network: IPv4Network
    """Of all pods. Other addresses inside it must not be on the device."""


def name_of(vni: int) -> str:
    """As flannel names it."""
    return f"flannel.{vni}"


def wiring_of(devices: Devices, name: str) -> Wiring | None:
    """The wiring of device `name`. None: it is missing, or not a VXLAN device."""
    try:
        message = devices.netlink.link("get", ifname=name)[0]
    except NetlinkError:
        return None
    data = message.get(("linkinfo", "data"))
    if message.get(("linkinfo", "kind")) != "vxlan" or not data.get_attr("IFLA_VXLAN_LOCAL"):
        return None
    return Wiring(
        vni=data.get_attr("IFLA_VXLAN_ID"),
        port=data.get_attr("IFLA_VXLAN_PORT"),
        local=IPv4Address(data.get_attr("IFLA_VXLAN_LOCAL")),
        underlay=data.get_attr("IFLA_VXLAN_LINK") or 0,
        learns=bool(data.get_attr("IFLA_VXLAN_LEARNING")),
        is_gbp=bool(data.get_attr("IFLA_VXLAN_GBP")),
    )


def port_of(devices: Devices, device: Device) -> tuple[int, int]:
    """VNI and UDP port of a VXLAN device. Zeros: it is gone."""
    try:
        message = devices.netlink.link("get", index=device.index)[0]
    except NetlinkError:
        return 0, 0
    data = message.get(("linkinfo", "data"))
    return data.get_attr("IFLA_VXLAN_ID") or 0, data.get_attr("IFLA_VXLAN_PORT") or 0


def mismatch(device: Device, actual: Wiring | None, wanted: Wiring) -> str:
    """Why an existing device can't be changed into the wanted one. Empty: it can."""
    if device.kind != "vxlan" or actual is None:
        return (
            f"it is a {device.kind or 'hardware'} device, not a VXLAN tunnel with a local address"
        )
    for name, word in (
        ("vni", "VNI"),
        ("port", "port"),
        ("local", "local address"),
        ("underlay", "underlay interface #"),
        ("learns", "learning"),
        ("is_gbp", "group policy extension"),
    ):
        is_, should = getattr(actual, name), getattr(wanted, name)
        if is_ != should:
            return f"its {word} is {is_}, not {should}"
    return ""


def ensure(devices: Devices, wanted: Vtep) -> tuple[Device, list[str]]:
    """Make the device as `wanted`. Returns it and a line for each change.

    KernelError: the kernel refused a change.
    """
    with explained(f"set up device {wanted.name}"):
        device, done = devices.by_name(wanted.name), []
        if device and (reason := mismatch(device, wiring_of(devices, wanted.name), wanted.wiring)):
            devices.netlink.link("del", index=device.index)
            done.append(f"remove device {wanted.name}: {reason}")
            device = None
        if device is None:
            device = _create(devices, wanted)
            done.append(f"add device {wanted.name}, MAC {wanted.mac}, MTU {wanted.mtu}: missing")
        done += _adjust(devices, device, wanted)
        done += _readdress(devices, device, wanted)
        if not device.is_up:
            devices.netlink.link("set", index=device.index, state="up")
            done.append(f"set device {wanted.name} up: it was down")
        return _read(devices, wanted.name), done


def remove(devices: Devices, name: str) -> bool:
    """Delete the VXLAN device `name`. True: it was there."""
    device = devices.by_name(name)
    if device is None or device.kind != "vxlan":
        return False
    with explained(f"remove device {name}"):
        devices.netlink.link("del", index=device.index)
    return True


def _read(devices: Devices, name: str) -> Device:
    device = devices.by_name(name)
    if device is None:
        raise KernelError(
            f"read device {name}", errno.ENODEV, "another program removes it; it is made again"
        )
    return device


def _create(devices: Devices, wanted: Vtep) -> Device:
    wiring = wanted.wiring
    options: dict[str, Any] = {"vxlan_gbp": True} if wiring.is_gbp else {}
    if wiring.underlay:
        options["vxlan_link"] = wiring.underlay
    advice = "is another VXLAN device using its VNI and port? see 'ip -d link show type vxlan'"
    with explained(f"add device {wanted.name}", advice):
        devices.netlink.link(
            "add",
            ifname=wanted.name,
            kind="vxlan",
            # Set at creation: systemd's MACAddressPolicy changes a MAC that is not set by then.
            address=wanted.mac,
            mtu=wanted.mtu,
            vxlan_id=wiring.vni,
            vxlan_port=wiring.port,
            vxlan_local=str(wiring.local),
            vxlan_learning=int(wiring.learns),
            **options,
        )
    # No router sends advertisements in a tunnel; flannel turns this off too.
    with contextlib.suppress(KernelError):
        sysctls.write({f"net/ipv6/conf/{wanted.name}/accept_ra": "0"})
    return _read(devices, wanted.name)


def _adjust(devices: Devices, device: Device, wanted: Vtep) -> list[str]:
    done = []
    if device.mac != wanted.mac:
        devices.netlink.link("set", index=device.index, address=wanted.mac)
        done.append(f"set MAC of {device.name} to {wanted.mac}: was {device.mac}")
    if device.mtu != wanted.mtu:
        devices.netlink.link("set", index=device.index, mtu=wanted.mtu)
        done.append(f"set MTU of {device.name} to {wanted.mtu}: was {device.mtu}")
    return done


def _readdress(devices: Devices, device: Device, wanted: Vtep) -> list[str]:
    own = IPv4Interface((wanted.address, 32))
    present = devices.addresses(device.index)
    done = []
    for address in present:
        if address != own and address.ip in wanted.network:
            devices.netlink.addr("del", index=device.index, address=str(address))
            done.append(f"remove address {address} of {device.name}: it is {own}'s device")
    if own not in present:
        devices.netlink.addr("add", index=device.index, address=str(wanted.address), prefixlen=32)
        done.append(f"add address {own} to {device.name}: missing")
    return done
