# SPDX-License-Identifier: Apache-2.0
"""One state per pod: which pods there are, whose an address is, what the programs are told."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from vxlane.datapath.abi import Guard
from vxlane.host.devices import Device
from vxlane.pods.interfaces import PodInterface, PodStore
from vxlane.pods.pods import NO_BYPASS, Pods
from vxlane.pods.programs import PodPrograms

BRIDGE = Device(
    index=5,
    name="cni0",
    kind="bridge",
    mac="02:00:00:00:00:05",
    mtu=1450,
    master=0,
    is_up=True,
    qdisc="noqueue",
    is_isolated=False,
    filters_vlans=False,
)


def veth(number: int, *, index: int = 0) -> Device:
    """The veth of pod `number`."""
    mac = f"02:00:00:00:00:{number:02x}"
    return dataclasses.replace(
        BRIDGE, index=index or number, name=f"veth{number}", kind="veth", mac=mac, master=5
    )


def pod(number: int, address: str = "") -> PodInterface:
    """What the CNI plugin says of pod `number`."""
    mac = f"02:00:00:00:01:{number:02x}"
    address = address or f"10.42.1.{number}"
    return PodInterface(f"c{number}", "eth0", "", f"veth{number}", mac, (address,))


class Host:
    """Devices, the map of pods, and the veths with programs."""

    def __init__(self) -> None:
        self.devices = {device.index: device for device in (BRIDGE, veth(10), veth(11))}
        self.map: dict[Any, Any] = {}
        self.places: set[int] = set()
        self.capacity = 100

    def all(self) -> dict[int, Device]:
        """See `Devices`."""
        return self.devices

    def by_index(self, index: int) -> Device | None:
        """See `Devices`."""
        return self.devices.get(index)

    def by_name(self, name: str) -> Device | None:
        """See `Devices`."""
        return next((device for device in self.devices.values() if device.name == name), None)

    def pods(self) -> dict[Any, Any]:
        """See `Maps`."""
        return dict(self.map)

    def put_pod(self, entry: Any) -> None:
        """See `Maps`."""
        self.map[entry.address] = entry

    def delete_pod(self, address: Any) -> None:
        """See `Maps`."""
        self.map.pop(address, None)

    def delete_veth(self, _: int) -> None:
        """See `Maps`."""

    def read(self) -> None:
        """See `HookKeeper`."""

    def attach(self, places: Any) -> str:
        """See `HookKeeper`."""
        self.places |= {ifindex for _, ifindex in places}
        return ""

    def detach(self, places: Any) -> None:
        """See `HookKeeper`."""
        self.places -= {ifindex for _, ifindex in places}

    def programs(self) -> PodPrograms:
        """Programs on this host."""
        this: Any = self
        return PodPrograms(this, this, lambda _: Guard(0))

    def shown(self) -> dict[str, int]:
        """The map: the veth's ifindex by address."""
        return {str(address): entry.ifindex for address, entry in self.map.items()}


@pytest.fixture
def host() -> Any:
    """A node with two veths on a bridge."""
    return Host()


@pytest.fixture
def pods(host: Any, tmp_path: Path) -> Pods:
    """Its pods, with programs."""
    pods = Pods(host, PodStore(tmp_path))
    pods.connect(host.programs())
    return pods


def test_pods_are_known_without_a_bypass_and_accelerated_with_one(
    host: Any, tmp_path: Path
) -> None:
    """A pod that is added while there are no programs gets them with the next reconcile."""
    pods = Pods(host, PodStore(tmp_path))
    assert pods.add(pod(10)) == NO_BYPASS
    assert pods.check(pod(10)) == NO_BYPASS
    assert host.shown() == {}
    pods.connect(host.programs())
    pods.reconcile()
    assert (host.shown(), host.places) == ({"10.42.1.10": 10}, {10})
    pods.connect(None)
    assert pods.ports() == ()
    again = Pods(host, PodStore(tmp_path))
    again.connect(host.programs())
    again.reconcile()
    assert host.shown() == {"10.42.1.10": 10}


def test_the_newest_pod_has_the_address(host: Any, pods: Pods) -> None:
    """An address that is given again is the new pod's, also after the old one's DEL."""
    pods.add(pod(10))
    assert pods.add(pod(11, "10.42.1.10")) == ""
    assert host.shown() == {"10.42.1.10": 11}
    assert pods.check(pod(10)) == "the pod has no IPv4 address of its own"
    pods.remove(pod(10).key)
    assert (host.shown(), host.places) == ({"10.42.1.10": 11}, {11})


def test_an_ifindex_is_used_again(host: Any, pods: Pods) -> None:
    """A pod on the ifindex of one that is gone takes over at once, before any event."""
    pods.add(pod(10))
    del host.devices[10]
    host.devices[10] = veth(12, index=10)
    pods.add(pod(12))
    assert host.shown() == {"10.42.1.12": 10}
    assert [port.name for port in pods.ports()] == ["veth12"]
    pods.devices_removed({10})
    assert (host.shown(), host.places, pods.ports()) == ({}, set(), ())


def test_what_is_stale_in_the_map_goes(host: Any, pods: Pods) -> None:
    """Reconcile removes entries without a pod, and puts back what someone removed."""
    pods.add(pod(10))
    stale = dataclasses.replace(host.map[IPv4Address("10.42.1.10")], address=IPv4Address(1))
    host.map = {stale.address: stale}
    pods.reconcile()
    assert host.shown() == {"10.42.1.10": 10}


def test_a_bridge_that_gets_a_port_is_no_other_bridge(host: Any, pods: Pods) -> None:
    """Pods are checked again for an event of their bridge only if it is another one for them."""
    pods.add(pod(10))
    entry = host.map.pop(IPv4Address("10.42.1.10"))
    assert pods.devices_changed({5})
    pods.check_changed()
    assert host.map == {}
    host.devices[5] = dataclasses.replace(BRIDGE, mac="02:00:00:00:00:99")
    pods.devices_changed({5})
    pods.check_changed()
    assert host.map[entry.address].gateway_mac == "02:00:00:00:00:99"
    assert not pods.devices_changed({77})
