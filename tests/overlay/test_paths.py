# SPDX-License-Identifier: Apache-2.0
"""Paths are remembered, and one that did not change is the very object that it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from vxlane.host.nexthops import NextHop, Query
from vxlane.overlay.desired import OwnRouting
from vxlane.overlay.paths import Paths
from vxlane.sources.model import Backend, Node
from vxlane.util.dirty import Dirty

PEER = Node("node2", IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"), "02:00:00:00:00:02")
NEAR = NextHop(4, PEER.address)
FAR = NextHop(4, IPv4Address("192.168.77.254"))
QUERY = Query(IPv4Address("192.168.77.1"), 8472)
TUNNEL = OwnRouting(Backend.VXLAN, device=9, routes_directly=False)


def test_what_did_not_change_is_the_same_object() -> None:
    """Paths are remembered: an unchanged peer keeps its very path, a changed one does not."""
    hop = NEAR
    paths = Paths(lambda addresses, _: dict.fromkeys(addresses, hop))
    [first] = paths.to((PEER,), QUERY, TUNNEL)
    assert paths.to((PEER,), QUERY, TUNNEL)[0] is first
    hop = FAR
    assert paths.to((PEER,), QUERY, TUNNEL)[0] is first
    [dirty] = paths.resync()
    assert dirty == Dirty.NODES
    [second] = paths.to((PEER,), QUERY, TUNNEL)
    assert second.hop == FAR
    hop = NEAR
    paths.forget()
    [third] = paths.to((PEER,), QUERY, TUNNEL)
    assert third == first
    other = OwnRouting(Backend.VXLAN, device=10, routes_directly=False)
    assert paths.to((PEER,), QUERY, other)[0] is not third


def test_paths_of_peers_that_come_and_go() -> None:
    """A peer that is gone has no path any more, and one that shared its address keeps its own."""
    asked: list[IPv4Address] = []

    def resolve(addresses: Iterable[IPv4Address], _: Query) -> dict[IPv4Address, NextHop]:
        found = dict.fromkeys(addresses, NEAR)
        asked.extend(found)
        return found

    twin = dataclasses.replace(PEER, name="twin", pod_cidr=IPv4Network("10.42.8.0/24"))
    paths = Paths(resolve)
    assert [path.node for path in paths.to((PEER, twin), QUERY, TUNNEL)] == [PEER, twin]
    assert [path.node for path in paths.to((twin,), QUERY, TUNNEL)] == [twin]
    assert asked == [PEER.address]
    moved = dataclasses.replace(twin, address=IPv4Address("192.168.77.8"))
    assert [path.node for path in paths.to((PEER, moved), QUERY, TUNNEL)] == [moved, PEER]
    assert asked == [PEER.address, moved.address]
    assert paths.to((), QUERY, TUNNEL) == ()


def test_a_peer_without_a_way_keeps_its_route() -> None:
    """While there is no way to a peer its route stays; when the way is another, it does not."""
    hop = NEAR
    paths = Paths(lambda addresses, _: dict.fromkeys(addresses, hop))
    host_gw = OwnRouting(Backend.HOST_GW, device=0, routes_directly=False)
    peer = dataclasses.replace(PEER, backend=Backend.HOST_GW)
    [served] = paths.to((peer,), QUERY, host_gw)
    hop = NextHop(0, PEER.address, reason="no route to 192.168.77.2 (ENETUNREACH)")
    paths.forget()
    [lost] = paths.to((peer,), QUERY, host_gw)
    assert (lost.way, lost.entries) == (None, served.entries)
    assert lost.problem
    assert "ENETUNREACH" in lost.problem.reason
    hop = FAR
    paths.forget()
    [routed] = paths.to((peer,), QUERY, host_gw)
    assert (routed.way, routed.entries) == (None, ())
