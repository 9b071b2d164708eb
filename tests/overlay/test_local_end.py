# SPDX-License-Identifier: Apache-2.0
"""Which device of a node is the overlay's, decided by its routes."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from plaindevice import device

from vxlane.host.entries import Route
from vxlane.host.vtep import Wiring
from vxlane.overlay.local_end import LocalEnd, in_use

NETWORK = IPv4Network("10.42.0.0/16")


def route(cidr: str, device: int) -> Route:
    """A route of flannel's over a device."""
    network = IPv4Network(cidr)
    address = int(network.network_address)
    return Route(address, network.prefixlen, address, device, 4)


def tunnel(index: int, vni: int) -> LocalEnd:
    """The device flannel.<vni>."""
    wiring = Wiring(vni, 8472, IPv4Address("192.168.1.1"), 2)
    return LocalEnd(device(index, f"flannel.{vni}", "vxlan"), wiring, is_tunnel=True)


@pytest.mark.parametrize(
    ("devices", "vni", "chosen"),
    [
        ([5, 5, 9], 1, 5),
        ([5, 9, 9], 1, 9),
        ([5, 9], 1, 5),
        ([5, 9], 7, 9),
        ([], 1, 5),
        ([], 3, 9),
    ],
)
def test_the_device_that_most_routes_lead_over(devices, vni, chosen):
    """Of equals it is that of the configuration, else the newest."""
    routes = [route(f"10.42.{n}.0/24", device) for n, device in enumerate(devices, start=2)]
    assert in_use([tunnel(5, 1), tunnel(9, 7)], routes, vni=vni).tunnel == chosen


@pytest.mark.parametrize(
    ("cidr", "network", "is_part"),
    [
        ("10.42.2.0/24", NETWORK, True),
        ("10.42.0.0/16", NETWORK, False),
        ("10.43.2.0/24", NETWORK, False),
        ("10.0.0.0/8", NETWORK, False),
        ("10.42.2.0/24", None, False),
        ("10.42.2.0/24", IPv4Network("0.0.0.0/0"), False),
    ],
)
def test_a_route_into_the_pods_network(cidr, network, is_part):
    """A route to a part of it leads to a peer; one to the whole, or around it, does not."""
    assert route(cidr, 2).leads_into(network) == is_part
