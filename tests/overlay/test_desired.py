# SPDX-License-Identifier: Apache-2.0
"""The desired state of each peer: the kernel's entries, and the entry in the programs' map."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from vxlane.datapath.abi import Way
from vxlane.host.entries import (
    FdbEntry,
    Neighbour,
    Route,
)
from vxlane.host.nexthops import NextHop
from vxlane.overlay.desired import AdoptedRouting, OwnRouting, entries_of, peer_of
from vxlane.sources.model import Backend, Node

PEER = Node("node2", IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"), "02:00:00:00:00:02")
NEAR = NextHop(4, PEER.address)
FAR = NextHop(4, IPv4Address("192.168.77.254"))
FAR_BY_IPV6 = NextHop(4, IPv6Address("fe80::1"))
TUNNEL = OwnRouting(Backend.VXLAN, device=9, routes_directly=False)
GATEWAY = int(PEER.pod_cidr.network_address)


def test_a_tunnel_is_neighbour_then_fdb_then_route() -> None:
    """The three entries of a peer stand in flannel's order: a route leads nowhere before."""
    path = TUNNEL.path(PEER, NEAR)
    assert path.way is Way.TUNNEL
    assert list(entries_of([path]).values()) == [
        Neighbour(GATEWAY, PEER.vtep_mac, 9),
        FdbEntry(PEER.vtep_mac, int(PEER.address), 9),
        Route(GATEWAY, 24, GATEWAY, 9, 4),
    ]


@pytest.mark.parametrize(
    ("plan", "hop", "way"),
    [
        (OwnRouting(Backend.VXLAN, 9, routes_directly=True), NEAR, Way.DIRECT),
        (OwnRouting(Backend.VXLAN, 9, routes_directly=True), FAR, Way.TUNNEL),
        (OwnRouting(Backend.VXLAN, 9, routes_directly=True), FAR_BY_IPV6, Way.TUNNEL),
        (AdoptedRouting(), NEAR, Way.TUNNEL),
    ],
)
def test_the_way_to_a_peer(plan: OwnRouting | AdoptedRouting, hop: NextHop, way: Way) -> None:
    """Own: direct if asked for and on our link. Adopted: as the kernel's entries have it."""
    assert plan.path(PEER, hop).way is way


def test_host_gw_does_not_reach_behind_a_router() -> None:
    """With host-gw a peer behind a router is a Problem, not a wrong route."""
    plan = OwnRouting(Backend.HOST_GW, 0, routes_directly=False)
    peer = dataclasses.replace(PEER, backend=Backend.HOST_GW)
    path = plan.path(peer, FAR)
    assert (path.way, path.entries) == (None, ())
    assert path.problem
    assert "behind a router" in path.problem.reason


def test_a_peer_of_another_backend_is_no_peer() -> None:
    """A peer whose backend is not ours is reported and gets no entries."""
    path = TUNNEL.path(dataclasses.replace(PEER, backend=Backend.HOST_GW), NEAR)
    assert path.way is None
    assert path.problem
    assert path.problem.reason == "its backend is host-gw, this node's is vxlan"


def test_a_peer_with_our_own_address_gets_no_route() -> None:
    """Its pods may be this node's, which has another's name then."""
    hop = NextHop(0, PEER.address, reason="it is ours", is_own=True)
    path = TUNNEL.path(PEER, hop)
    assert (path.way, path.entries) == (Way.TUNNEL, ())
    assert path.problem
    assert path.problem.reason == "it is ours"


@pytest.mark.parametrize(
    ("hop", "device", "nic", "mtu"),
    [
        (NEAR, 1450, 1500, 1450),
        (NEAR, 1450, 1400, 1350),
        (NEAR, 8950, 9000, 8950),
        (dataclasses.replace(NEAR, path_mtu=1300), 1450, 1500, 1250),
        (NextHop(0, PEER.address, reason="none"), 1450, 0, 0),
    ],
)
def test_the_inner_mtu_is_the_smallest(hop: NextHop, device: int, nic: int, mtu: int) -> None:
    """The device, the NIC less 50 and the path less 50: the smallest counts."""
    peer = peer_of(TUNNEL.path(PEER, hop), 3, device_mtu=device, nic_mtu=nic)
    assert (peer.mtu, peer.slot) == (mtu, 3)
