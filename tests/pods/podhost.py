# SPDX-License-Identifier: Apache-2.0
"""A node for `Pods`: devices and hooks by word, maps in memory, files in a directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

from memorymaps import Bpf
from plaindevice import device

from vxlane.datapath.abi import Guard, Program
from vxlane.datapath.hooks import Place
from vxlane.datapath.maps import Maps
from vxlane.host.devices import Device
from vxlane.host.veths import FarEnd
from vxlane.pods.interfaces import Key, PodInterface, PodStore
from vxlane.pods.pods import Pods
from vxlane.pods.programs import PodPrograms

BRIDGE = device(5, "cni0", "bridge")


def veth(number: int, *, index: int = 0, **changes: object) -> Device:
    """The host's end of pod `number`: veth<number>, ifindex 10 + `number` or `index`."""
    made = dataclasses.replace(
        BRIDGE,
        index=index or 10 + number,
        name=f"veth{number}",
        kind="veth",
        mac=f"02:00:00:00:10:{number:02x}",
        master=BRIDGE.index,
    )
    return dataclasses.replace(made, **changes)


def pod(number: int, *, host: int = 0, address: int = 0) -> PodInterface:
    """What the plugin says of pod `number`."""
    return PodInterface(
        f"c{number}",
        "eth0",
        f"/run/netns/{number}",
        f"veth{host or number}",
        f"02:00:00:00:20:{number:02x}",
        (f"10.42.1.{address or number}",),
        network="cbr0",
    )


class Host:
    """Stands in for the kernel's devices and the hooks on them."""

    socket = None

    def __init__(self, *devices: Device) -> None:
        self.devices = {device.index: device for device in (BRIDGE, *devices)}
        self.hooks: set[Place] = set()
        self.refusal = ""
        self.foreign: dict[int, Guard] = {}
        self.asked: list[int] = []
        """Whose filters were read."""
        self.ends: dict[int, FarEnd] = {}
        self.hook_reads = 0

    def set(self, *devices: Device) -> None:
        """Devices that came or are other now."""
        self.devices |= {device.index: device for device in devices}

    def all(self) -> dict[int, Device]:
        """See `Devices`."""
        return dict(self.devices)

    def by_index(self, index: int) -> Device | None:
        """See `Devices`."""
        return self.devices.get(index)

    def by_name(self, name: str) -> Device | None:
        """See `Devices`."""
        return next((found for found in self.devices.values() if found.name == name), None)

    def read(self) -> None:
        """See `HookKeeper`."""
        self.hook_reads += 1

    def attach(self, places: Iterable[Place]) -> str:
        """See `HookKeeper`."""
        if not self.refusal:
            self.hooks |= set(places)
        return self.refusal

    def detach(self, places: Iterable[Place]) -> None:
        """See `HookKeeper`."""
        self.hooks -= set(places)

    def filters(self, ifindex: int) -> Guard:
        """Whose filters stand on a device, as `ForeignFilters` says."""
        self.asked.append(ifindex)
        return self.foreign.get(ifindex, Guard(0))


class Node:
    """Pods on a host, with the map in memory."""

    def __init__(self, maps: Maps, bpf: Bpf, host: Host, directory: Path) -> None:
        self.maps, self.bpf, self.host = maps, bpf, host
        self._directory = directory
        self.start()

    def start(self) -> None:
        """An agent begins, with what is stored and pinned."""
        self.pods = Pods(self.host, PodStore(self._directory))
        self.connect()

    def connect(self) -> None:
        """There is a bypass."""
        self.pods.connect(PodPrograms(self.maps, self.host, self.host.filters))

    def known(self) -> set[Key]:
        """The pods that are remembered."""
        return self.pods.of_network("cbr0")

    def accelerated(self) -> dict[str, int]:
        """Veths by address, as the map has them."""
        return {str(found.address): found.ifindex for found in self.maps.pods().values()}

    def guard(self, address: str) -> Guard:
        """What the programs are told to leave alone."""
        return self.maps.pods()[IPv4Address(address)].guard

    def veths(self) -> set[int]:
        """Devices that the programs put packets into."""
        return {key[0] for key in self.bpf.entries["veths"]}


def hooks(*ifindexes: int) -> set[Place]:
    """Both programs of each veth."""
    return {(program, i) for i in ifindexes for program in (Program.FROM_POD, Program.TO_POD)}
