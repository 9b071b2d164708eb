# SPDX-License-Identifier: Apache-2.0
"""The underlay is chosen once, and its address stays this node's."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest
from plaindevice import device

from vxlane.errors import ConfigError
from vxlane.host.devices import Device
from vxlane.host.underlay import Choice, Underlay
from vxlane.overlay.chosen import ChosenUnderlay

OURS, VIP = IPv4Address("192.168.77.1"), IPv4Address("192.168.77.200")
ETH0 = device(2, "eth0", mtu=1500)
BRIDGE = device(9, "cni0", "bridge")


class Host:
    """The devices and addresses of a node, as `Devices` shows them."""

    def __init__(self) -> None:
        self.devices = [ETH0, BRIDGE]
        self.held = {OURS: 2, IPv4Address("10.42.1.1"): 9}

    def holder(self, address: IPv4Address, *, before: int = 0) -> Device | None:  # noqa: ARG002
        """The device that has `address`."""
        return self.by_index(self.held.get(address, 0))

    def by_index(self, index: int) -> Device | None:
        """The device of that ifindex."""
        return next((device for device in self.devices if device.index == index), None)

    def by_name(self, name: str) -> Device | None:
        """The device of that name."""
        return next((device for device in self.devices if device.name == name), None)

    def addresses(self, index: int = 0) -> dict[IPv4Interface, int]:
        """All addresses, or those of one device."""
        found = {IPv4Interface((str(ip), 24)): at for ip, at in self.held.items()}
        return {ip: at for ip, at in found.items() if index in (0, at)}


@pytest.fixture
def host() -> Any:
    """A node with eth0 and cni0."""
    return Host()


def test_an_address_that_is_away_stays_ours(host: Any) -> None:
    """A VIP on the chosen interface does not become ours while our address is away."""
    chosen = ChosenUnderlay(host, Choice(interfaces=("eth0",)))
    assert chosen.now(known=OURS, asked=None) == Underlay(ETH0, OURS)
    host.held = {VIP: 2} | {ip: at for ip, at in host.held.items() if ip != OURS}
    assert chosen.now(known=OURS, asked=None) == Underlay(ETH0, OURS)
    assert "no interface has the address 192.168.77.1 now" in chosen.problem
    for known in (None, OURS):
        assert chosen.now(known=known, asked=None) == Underlay(ETH0, OURS)
        assert "no interface has the address 192.168.77.1 now" in chosen.problem
    host.held[OURS] = 2
    assert chosen.now(known=OURS, asked=None) == Underlay(ETH0, OURS)
    assert chosen.problem == ""


def test_a_renamed_interface_is_still_the_chosen_one(host: Any) -> None:
    """The interface follows the address, whatever the interface is called or where it moves."""
    chosen = ChosenUnderlay(host, Choice(interfaces=("eth0",)))
    chosen.now(known=None, asked=None)
    renamed = dataclasses.replace(ETH0, name="lan0")
    host.devices = [renamed, BRIDGE]
    assert chosen.now(known=None, asked=None) == Underlay(renamed, OURS)
    assert chosen.problem == ""


def test_after_a_restart_peers_know_us_still(host: Any) -> None:
    """A choice that can't be made any more leaves the address that peers have, if it is here."""
    host.devices = [dataclasses.replace(ETH0, name="lan0"), BRIDGE]
    chosen = ChosenUnderlay(host, Choice(interfaces=("eth0",)))
    assert chosen.now(known=OURS, asked=None).address == OURS
    assert "192.168.77.1, which peers know, stays" in chosen.problem
    host.devices = [ETH0, BRIDGE]
    host.held = {VIP: 2} | host.held
    assert chosen.now(known=OURS, asked=None) == Underlay(ETH0, OURS)
    with pytest.raises(ConfigError, match="eth1"):
        ChosenUnderlay(host, Choice(interfaces=("eth1",))).now(known=None, asked=None)


def test_an_interface_that_is_gone_is_waited_for(host: Any) -> None:
    """Without the chosen interface no other one is taken, and it is found when it is back."""
    chosen = ChosenUnderlay(host, Choice(interfaces=("eth0",)))
    chosen.now(known=None, asked=None)
    host.devices, host.held = [BRIDGE], {IPv4Address("10.42.1.1"): 9}
    with pytest.raises(ConfigError, match=r"eth0 with 192.168.77.1 is gone"):
        chosen.now(known=None, asked=None)
    anew = dataclasses.replace(ETH0, index=12)
    host.devices, host.held = [anew, BRIDGE], {OURS: 12}
    assert chosen.now(known=None, asked=None) == Underlay(anew, OURS)


def test_a_public_address_of_a_nat_is_on_no_interface(host: Any) -> None:
    """--public-ip beside --iface is not looked for on the node."""
    chosen = ChosenUnderlay(host, Choice(interfaces=("eth0",), public=VIP))
    for _ in range(2):
        assert chosen.now(known=VIP, asked=None) == Underlay(ETH0, OURS, public=VIP)
        assert chosen.problem == ""


def test_another_address_that_is_asked_for_is_taken(host: Any) -> None:
    """The annotation node-public-ip, or a file of nodes, may give this node another address."""
    host.held[VIP] = 2
    chosen = ChosenUnderlay(host, Choice())
    assert chosen.now(known=OURS, asked=None).address == OURS
    assert chosen.now(known=OURS, asked=VIP).address == VIP
    del host.held[VIP]
    assert chosen.now(known=OURS, asked=IPv4Address("192.168.77.9")).address == OURS
    assert "no interface has the address 192.168.77.9" in chosen.problem
    host.held = {IPv4Address("192.168.77.9"): 2, VIP: 2} | host.held
    assert str(chosen.now(known=OURS, asked=IPv4Address("192.168.77.9")).address) == "192.168.77.9"
    other = ChosenUnderlay(host, Choice())
    assert other.now(known=OURS, asked=None).address == OURS
    assert other.now(known=VIP, asked=None).address == VIP
