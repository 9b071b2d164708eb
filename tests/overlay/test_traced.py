# SPDX-License-Identifier: Apache-2.0
"""Peers as the kernel's entries have them."""

from __future__ import annotations

import dataclasses
import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.datapath.abi import Way
from vxlane.host.entries import (
    Entries,
    Entry,
    FdbEntry,
    Neighbour,
    Route,
)
from vxlane.host.nexthops import NextHop
from vxlane.overlay.desired import AdoptedRouting, OwnRouting, entries_of
from vxlane.overlay.traced import TracedPeers
from vxlane.sources.model import Backend, Node

OWN = Node("node1", IPv4Address("192.168.77.1"), IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
PEER = Node("node2", IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"), "02:00:00:00:00:02")
NEAR = NextHop(4, PEER.address)
FAR = NextHop(4, IPv4Address("192.168.77.254"))
TUNNEL = OwnRouting(Backend.VXLAN, device=9, routes_directly=False)
GATEWAY = int(PEER.pod_cidr.network_address)


def test_a_plain_route_to_a_peers_address_is_a_direct_way() -> None:
    """Adopted: what the kernel has counts, not what is near; another gateway is nobody's."""
    route = Route(GATEWAY, 24, int(PEER.address), 4, 0)
    traced = TracedPeers(9)
    traced.follow({route.key: route}, {route.key})
    assert traced.peers == {}
    traced.name([PEER])
    assert [AdoptedRouting().path(p, FAR).way for p in traced.peers.values()] == [Way.DIRECT]
    traced.name([dataclasses.replace(PEER, address=OWN.address)])
    assert traced.peers == {}


@pytest.mark.parametrize(
    ("cidr", "flags", "peers"),
    [("10.42.2.0/24", 0, [PEER.address]), ("10.42.2.0/24", 4, []), ("10.43.2.0/24", 0, [])],
    ids=["host-gw", "another tunnel's: onlink", "not to pods"],
)
def test_a_plain_route_to_pods_is_a_peer_without_a_list(
    cidr: str, flags: int, peers: list[IPv4Address]
) -> None:
    """In the network of all pods; flannel's ipip has the same gateways, behind a tunnel."""
    network = IPv4Network(cidr)
    route = Route(int(network.network_address), 24, int(PEER.address), 4, flags)
    traced = TracedPeers(0, IPv4Network("10.42.0.0/16"))
    traced.follow({route.key: route}, {route.key})
    assert [peer.address for peer in traced.peers.values()] == peers
    traced.name([PEER])
    assert [peer.address for peer in traced.peers.values()] == peers


def test_the_kernel_names_its_peers_by_the_list() -> None:
    """Entries of the kernel that lead to one another are a peer, under the name that is listed."""
    entries = entries_of([TUNNEL.path(PEER, NEAR)])
    traced = TracedPeers(9)
    traced.follow(entries, entries)
    assert [node.name for node in traced.peers.values()] == ["10.42.2.0/24"]
    traced.name([PEER])
    assert (list(traced.peers.values()), traced.problems) == ([PEER], {})
    traced.name([])
    assert [node.name for node in traced.peers.values()] == ["10.42.2.0/24"]


@pytest.mark.parametrize("lost", [Neighbour, FdbEntry, Route])
def test_a_peer_lives_as_long_as_all_its_entries(lost: type[Entry]) -> None:
    """When one of the three entries goes the peer goes, with a report; with it it comes back."""
    entries = entries_of([TUNNEL.path(PEER, NEAR)])
    traced = TracedPeers(9)
    traced.follow(entries, entries)
    traced.name([PEER])
    for _ in range(2):
        entry = next(entry for entry in entries.values() if isinstance(entry, lost))
        del entries[entry.key]
        traced.follow(entries, {entry.key})
        assert traced.peers == {}
        assert [problem.node for problem in traced.problems.values()] == ["node2"]
        entries[entry.key] = entry
        traced.follow(entries, {entry.key})
        assert (list(traced.peers.values()), traced.problems) == ([PEER], {})


def test_traced_by_changes_or_anew_peers_are_the_same() -> None:
    """After 2,000 random changes of entries and names what was followed is what is traced anew."""
    dice = random.Random(8)
    entries: Entries = {}
    nodes: dict[int, Node] = {}
    followed = TracedPeers(9)
    for _ in range(2000):
        network = int(IPv4Address("10.42.0.0")) + 256 * dice.randrange(6)
        mac, address = f"02:00:00:00:00:0{dice.randrange(6)}", dice.randrange(1, 6)
        entry = dice.choice(
            [
                Neighbour(network, mac, 9),
                FdbEntry(mac, address, 9),
                Route(network, 24, network + 256 * dice.randrange(2), 9, 4),
                Route(network, 24, address, 4, 0),
            ]
        )
        if dice.random() < 0.3:
            entries.pop(entry.key, None)
        else:
            entries[entry.key] = entry
        followed.follow(entries, {entry.key})
        cidr = IPv4Network((network, 24))
        nodes[network] = Node(f"node{network}", IPv4Address(address), cidr, mac)
        nodes.pop(int(IPv4Address("10.42.0.0")) + 256 * dice.randrange(6), None)
        followed.name(list(nodes.values()))
        anew = TracedPeers(9)
        anew.follow(entries, entries)
        anew.name(list(nodes.values()))
        assert (followed.peers, followed.problems) == (anew.peers, anew.problems)
