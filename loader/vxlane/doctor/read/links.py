# SPDX-License-Identifier: Apache-2.0
"""Reads the devices on the way of pods' packets, and finds which these are."""

from __future__ import annotations

import os
from collections.abc import Collection
from ipaddress import IPv4Interface
from pathlib import Path

from vxlane.config import SUBNET_FILE, SUBNET_VARIABLE
from vxlane.datapath.records import Settings
from vxlane.doctor.facts import Link, Links, Tunnel
from vxlane.doctor.read.programs import ProgramReader
from vxlane.host import subnet_env
from vxlane.host.devices import Device, Devices
from vxlane.host.offloads import features
from vxlane.host.vtep import Wiring, port_of, wiring_of

_FLANNELS = "flannel"


class LinkReader:
    """Reads once what is asked of it."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._all = devices.all()
        self._addresses = devices.addresses()
        self._programs = ProgramReader(devices.socket)
        self.wiring: Wiring | None = None
        """Of the VXLAN device."""

    def links(self, settings: Settings | None, veths: Collection[int]) -> Links:
        """The devices, by what `settings` say or else by flannel's names.

        `veths` are the ifindexes of pods' veths that the programs know.
        """
        tunnels = [device for device in self._all.values() if device.kind == "vxlan"]
        vtep = self._vtep(tunnels, settings)
        self.wiring = wiring_of(self._devices, vtep.name) if vtep else None
        nic = self._nic(self.wiring) if self.wiring else None
        bridges = [device for device in self._all.values() if self._is_of_pods(device, vtep)]
        masters = {bridge.index for bridge in bridges}
        ports = [
            device
            for device in self._all.values()
            if device.kind == "veth" and (device.master in masters or device.index in veths)
        ]
        return Links(
            vtep=self._link(vtep) if vtep else None,
            nic=self._link(nic) if nic else None,
            bridges=tuple(map(self._link, bridges)),
            veths=tuple(map(self._link, ports)),
            tunnels=tuple(self._tunnel(device) for device in tunnels),
            features=features(nic.name) if nic else {},
            pod_mtu=_pod_mtu(),
            names=frozenset(device.name for device in self._all.values()),
        )

    def _vtep(self, tunnels: list[Device], settings: Settings | None) -> Device | None:
        if settings:
            ours = [device for device in tunnels if device.mac == settings.vtep_mac]
            if ours:
                return ours[0]
        named = [device for device in tunnels if device.name.startswith(_FLANNELS)]
        return named[0] if named else None

    def _nic(self, wiring: Wiring) -> Device | None:
        if wiring.underlay:
            return self._all.get(wiring.underlay)
        holder = next((i for a, i in self._addresses.items() if a.ip == wiring.local), 0)
        return self._all.get(holder)

    def _is_of_pods(self, device: Device, vtep: Device | None) -> bool:
        """A bridge whose network has the VTEP's address in it: both are of the node's pod CIDR."""
        if device.kind != "bridge" or vtep is None:
            return False
        inside = [address.ip for address in self._of(vtep)]
        return any(ip in address.network for address in self._of(device) for ip in inside)

    def _of(self, device: Device) -> list[IPv4Interface]:
        return [address for address, index in self._addresses.items() if index == device.index]

    def _link(self, device: Device) -> Link:
        return Link(device=device, programs=self._programs.on(device.index))

    def _tunnel(self, device: Device) -> Tunnel:
        vni, port = port_of(self._devices, device)
        return Tunnel(name=device.name, vni=vni, port=port)


def _pod_mtu() -> int:
    file = Path(os.environ.get(SUBNET_VARIABLE) or SUBNET_FILE)
    told = subnet_env.read(file).get("FLANNEL_MTU", "")
    return int(told) if told.isdecimal() else 0
