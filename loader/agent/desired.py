"""What should be true of each peer: the kernel's entries, and what the programs are told.

Pure: from nodes and next hops to entries. What has not changed yields the very same objects, so
that with 10,000 peers a change of one costs the comparison of pointers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.loader.datapath.maps import Peer
from vxlane.loader.kernel.entries import Entries, Entry, direct, overlay
from vxlane.loader.kernel.nexthops import NextHop
from vxlane.loader.kernel.vtep import OVERHEAD
from vxlane.loader.nodes.model import Backend, Node, Problem


@dataclass(frozen=True, slots=True)
class Plan:
    """How this node reaches peers in general."""

    backend: Backend
    device: int
    """Ifindex of flannel.<VNI>; 0 with host-gw."""
    routes_directly: bool


@dataclass(frozen=True, slots=True)
class Path:
    """How one peer is reached."""

    node: Node
    hop: NextHop
    entries: tuple[Entry, ...] = ()
    is_tunnel: bool = False
    problem: Problem | None = None


class Paths:
    """The path to every peer, remembered by name."""

    def __init__(self) -> None:
        self._known: dict[str, Path] = {}
        self._plan: Plan | None = None

    def to(
        self, peers: Iterable[Node], hops: Mapping[IPv4Address, NextHop], plan: Plan
    ) -> list[Path]:
        """The path to each of `peers`, in their order; `hops` holds every peer's address."""
        known = self._known if plan == self._plan else {}
        found = {}
        for node in peers:
            hop = hops[node.address]
            path = known.get(node.name)
            if path is None or path.node is not node or path.hop is not hop:
                path = path_to(node, hop, plan)
            found[node.name] = path
        self._known, self._plan = found, plan
        return list(found.values())


def path_to(node: Node, hop: NextHop, plan: Plan) -> Path:
    """The path to one peer."""
    is_neighbour = bool(hop.ifindex) and hop.neighbour == node.address
    if node.backend is not plan.backend:
        reason = f"its backend is {node.backend.value}, this node's is {plan.backend.value}"
        return Path(node, hop, problem=Problem(node.name, reason))
    if plan.backend is Backend.HOST_GW or plan.routes_directly:
        if is_neighbour:
            entries = direct(node.pod_cidr, int(node.address), hop.ifindex)
            return Path(node, hop, entries)
        if plan.backend is Backend.HOST_GW:
            reason = hop.reason or f"{node.address} is behind a router; host-gw needs one L2"
            return Path(node, hop, problem=Problem(node.name, reason))
    entries = overlay(node.pod_cidr, node.vtep_mac, int(node.address), plan.device)
    problem = Problem(node.name, hop.reason) if hop.reason else None
    return Path(node, hop, entries, is_tunnel=True, problem=problem)


def entries_of(paths: Iterable[Path]) -> Entries:
    """All entries of `paths`, peer by peer in the order to write them."""
    return {entry.key: entry for path in paths for entry in path.entries}


def inner_mtu(device_mtu: int, nic_mtu: int, path_mtu: int) -> int:
    """The largest inner IP packet, bytes, that fits the tunnel, the NIC and the path."""
    outer = min(nic_mtu, path_mtu or nic_mtu)
    return min(device_mtu, outer - OVERHEAD)


def peer_of(path: Path, slot: int, mtu: int) -> Peer:
    """What the programs are told of a tunnelled peer."""
    return Peer(
        cidr=path.node.pod_cidr,
        address=path.node.address,
        next_hop=path.hop.neighbour,
        ifindex=path.hop.ifindex,
        mtu=mtu,
        slot=slot,
        vtep_mac=path.node.vtep_mac,
    )
