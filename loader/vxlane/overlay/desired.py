# SPDX-License-Identifier: Apache-2.0
"""The desired state of each peer: the kernel's entries and the programs' entry.

Pure: from nodes and next hops to entries. A peer that did not change keeps its objects, so with
10,000 peers a change of one compares pointers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from vxlane.datapath.abi import Way
from vxlane.datapath.records import Peer
from vxlane.host.entries import Entries, Entry, direct, overlay
from vxlane.host.nexthops import NextHop
from vxlane.host.vtep import OVERHEAD
from vxlane.sources.model import Backend, Node, Problem


@dataclass(frozen=True, slots=True)
class Path:
    """How a peer is reached."""

    node: Node
    hop: NextHop
    way: Way | None
    """None: the peer can't be reached, and `problem` says why."""
    entries: tuple[Entry, ...] = ()
    """The kernel's entries that are to be made."""
    problem: Problem | None = None


class Routing(Protocol):
    """Decides the path to a peer. Two that are equal give equal paths."""

    def path(self, node: Node, hop: NextHop) -> Path:
        """The path to `node`, whose next hop is `hop`."""


@dataclass(frozen=True, slots=True)
class OwnRouting:
    """Decides as flannel does: peers on our link get plain routes if that is configured, all others
    the tunnel.
    """

    backend: Backend
    device: int
    """Ifindex of flannel.<VNI>; 0 with host-gw."""
    routes_directly: bool

    def path(self, node: Node, hop: NextHop) -> Path:
        """See `Routing`."""
        is_on_link = bool(hop.ifindex) and hop.neighbour == node.address
        if node.backend is not self.backend:
            reason = f"its backend is {node.backend.value}, this node's is {self.backend.value}"
            return Path(node, hop, None, problem=Problem(node.name, reason))
        if is_on_link and (self.routes_directly or self.backend is Backend.HOST_GW):
            entries = direct(node.pod_cidr, int(node.address), hop.ifindex)
            return Path(node, hop, Way.DIRECT, entries)
        if self.backend is Backend.HOST_GW:
            reason = hop.reason or f"{node.address} is behind a router; host-gw needs one L2"
            return Path(node, hop, None, problem=Problem(node.name, reason))
        problem = Problem(node.name, hop.reason) if hop.reason else None
        if hop.is_own:
            # It may be this node by its right name: a route would replace that of its own pods.
            return Path(node, hop, Way.TUNNEL, problem=problem)
        entries = overlay(node.pod_cidr, node.vtep_mac, int(node.address), self.device)
        return Path(node, hop, Way.TUNNEL, entries, problem)


@dataclass(frozen=True, slots=True)
class AdoptedRouting:
    """Follows the kernel's entries: in mode adopt a node's backend is read from them."""

    def path(self, node: Node, hop: NextHop) -> Path:
        """See `Routing`."""
        problem = Problem(node.name, hop.reason) if hop.reason else None
        way = Way.DIRECT if node.backend is Backend.HOST_GW else Way.TUNNEL
        return Path(node, hop, way, problem=problem)


def exits_of(paths: Iterable[Path]) -> frozenset[tuple[Way, int]]:
    """The ways and NICs (ifindex) of the paths."""
    exits = set(map(attrgetter("way", "hop.ifindex", "hop.spread"), paths))
    return frozenset(
        (way, nic)
        for way, first, spread in exits
        for nic in (first, *spread)
        if way is not None and nic
    )


def entries_of(paths: Iterable[Path]) -> Entries:
    """All entries of `paths`, peer by peer in the order to write them."""
    return {entry.key: entry for path in paths for entry in path.entries}


def peer_of(path: Path, slot: int, *, device_mtu: int, nic_mtu: int) -> Peer:
    """A peer's entry in the programs' map. MTUs of flannel.<VNI> and of the NIC are in bytes."""
    assert path.way is not None
    outer = min(nic_mtu, path.hop.path_mtu or nic_mtu)
    return Peer(
        cidr=path.node.pod_cidr,
        address=path.node.address,
        next_hop=path.hop.neighbour,
        ifindex=path.hop.ifindex,
        # Without a path the MTU is 0, so that no packet fits.
        mtu=outer if path.way is Way.DIRECT else max(0, min(device_mtu, outer - OVERHEAD)),
        slot=slot,
        vtep_mac=path.node.vtep_mac,
        way=path.way,
    )
