# SPDX-License-Identifier: Apache-2.0
"""The underlay's interface is chosen as flannel chooses it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from vxlane.errors import ConfigError, KernelError
from vxlane.host.devices import Devices
from vxlane.host.underlay import Choice, choose

SETUP = """
ip link add eth0 type veth peer name wire0; ip link add eth1 type veth peer name wire1
ip addr add 192.168.77.1/24 dev eth0; ip addr add 10.9.0.1/24 dev eth1
ip addr add 10.9.0.2/24 dev eth1
for name in eth0 eth1 wire0 wire1; do ip link set $name up; done
ip route add default via 192.168.77.254
"""


@pytest.fixture
def devices(netns: str) -> Iterator[Devices]:
    """A host with two interfaces, the default route through eth0."""
    assert netns
    subprocess.run(["sh", "-ec", SETUP], check=True)
    devices = Devices()
    yield devices
    devices.close()


@pytest.mark.parametrize(
    ("choice", "name", "address"),
    [
        (Choice(), "eth0", "192.168.77.1"),
        (Choice(interfaces=("eth1",)), "eth1", "10.9.0.1"),
        (Choice(interfaces=("10.9.0.2",)), "eth1", "10.9.0.2"),
        (Choice(interfaces=("nope", "eth1")), "eth1", "10.9.0.1"),
        (Choice(patterns=(re.compile(r"^10\.9\.0\.2$"),)), "eth1", "10.9.0.2"),
        (Choice(patterns=(re.compile("eth1"),)), "eth1", "10.9.0.1"),
        (Choice(interfaces=("nope",), patterns=(re.compile("eth."),)), "eth0", "192.168.77.1"),
        (Choice(can_reach=IPv4Address("10.9.0.77")), "eth1", "10.9.0.1"),
        (Choice(public=IPv4Address("10.9.0.2")), "eth1", "10.9.0.2"),
        (Choice(("eth1",), public=IPv4Address("10.9.0.2")), "eth1", "10.9.0.2"),
    ],
)
def test_the_interface_is_found(devices: Devices, choice: Choice, name: str, address: str) -> None:
    """By name, address, pattern, reachability or default route: interface and address."""
    underlay = choose(devices, choice)
    assert (underlay.device.name, str(underlay.address)) == (name, address)
    assert underlay.announced == underlay.address


@pytest.mark.parametrize("public", ["203.0.113.9", "192.168.77.1"])
def test_an_address_that_the_interface_lacks_is_announced_alone(
    devices: Devices, public: str
) -> None:
    """A NAT between the nodes makes it of the interface's own, which packets carry here."""
    underlay = choose(devices, Choice(("eth1",), public=IPv4Address(public)))
    assert (underlay.device.name, str(underlay.address)) == ("eth1", "10.9.0.1")
    assert str(underlay.announced) == public


@pytest.mark.parametrize("length", [24, 32])
def test_of_two_with_one_address_it_is_the_one_that_sends(devices: Devices, length: int) -> None:
    """kube-proxy gives a node's address to kube-ipvs0, which is down, for a Service that has it."""
    ours = IPv4Address("192.168.77.1")
    again = f"192.168.77.1/{length}"
    for line in (
        "ip link add kube-ipvs0 type bridge; ip addr add 192.168.77.1/32 dev kube-ipvs0",
        f"ip addr del 192.168.77.1/24 dev eth0; ip addr add {again} dev eth0",
    ):
        subprocess.run(["sh", "-ec", line], check=True)
    eth0, other = devices.by_name("eth0"), devices.by_name("kube-ipvs0")
    assert eth0
    assert other
    assert devices.holder(ours) == eth0
    assert choose(devices, Choice(patterns=(re.compile(str(ours)),))).device == eth0
    assert devices.holder(ours, before=other.index) == other
    subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
    assert devices.holder(ours, before=eth0.index) == devices.by_name("eth0")


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (Choice(interfaces=("nope",)), "no interface is named, addressed or matched by nope"),
        (Choice(interfaces=("wire0",)), "wire0 has no IPv4 address"),
        (Choice(patterns=(re.compile("x+"),)), "named, addressed or matched by x+"),
        (Choice(public=IPv4Address("203.0.113.9")), "no interface has the address 203.0.113.9"),
    ],
)
def test_what_is_not_there_is_said(devices: Devices, choice: Choice, reason: str) -> None:
    """A choice that nothing fits is refused with the words of the choice."""
    with pytest.raises(ConfigError, match=re.escape(reason)):
        choose(devices, choice)


def test_without_any_route_one_is_asked_for(devices: Devices) -> None:
    """No default route and nothing named: the sentence says what to name."""
    subprocess.run(["ip", "route", "del", "default"], check=True)
    with pytest.raises(ConfigError, match="name one with --iface"):
        choose(devices, Choice())
    with pytest.raises(KernelError, match="--iface-can-reach"):
        choose(devices, Choice(can_reach=IPv4Address("8.8.8.8")))
