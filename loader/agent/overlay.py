"""What the rest of the agent needs to know of this node's overlay, whoever made it.

`owned` makes it, `adopted` reads it; both answer with an `Overlay`. Owns the words for what may
have to be looked at again, and the remembered next hops that both of them use.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from vxlane.loader.agent.desired import Path
from vxlane.loader.kernel.events import News
from vxlane.loader.kernel.netlink import NetlinkSocket
from vxlane.loader.kernel.nexthops import NextHop, Query, resolve
from vxlane.loader.nodes.model import Announcement, Node, Problem, Snapshot


class Topic(enum.Flag):
    """What may have changed."""

    NODES = enum.auto()
    HOST = enum.auto()
    """Interfaces, addresses, routes: next hops may be others."""
    ENTRIES = enum.auto()
    """Our routes, neighbours or forwarding entries."""
    RULES = enum.auto()
    """Masquerade and forward rules."""
    PODS = enum.auto()
    """Veths and bridges, their qdiscs and filters."""
    PORTS = enum.auto()
    """Rules about ports of bridges."""


ALL = Topic.NODES | Topic.HOST | Topic.ENTRIES | Topic.RULES | Topic.PODS | Topic.PORTS


@dataclass(frozen=True, slots=True)
class Overlay:
    """This node's end of the overlay and the way to every peer."""

    device: int
    """Ifindex of flannel.<VNI>; 0: there is none (host-gw)."""
    device_mtu: int
    address: IPv4Address
    """Our underlay address."""
    vtep_mac: str
    vni: int
    port: int
    underlay: int
    """Ifindex of the NIC; 0: the routes decide."""
    paths: tuple[Path, ...]
    problems: tuple[Problem, ...] = ()


def nics_of(overlay: Overlay) -> frozenset[int]:
    """Ifindexes of the interfaces that packets of peers come and go by."""
    used = {path.hop.ifindex for path in overlay.paths if path.way is not None}
    return frozenset((used | {overlay.underlay}) - {0})


class Overlays(Protocol):
    """Keeps, or follows, this node's overlay."""

    def announcement(self, own: Node | None) -> Announcement | None:
        """What this node has to tell the others; None: someone else tells them."""

    def contradicts(self, news: News) -> bool:
        """Whether an event says other than what the last look left behind."""

    def look(self, snapshot: Snapshot, topics: Topic) -> Overlay:
        """Make (or read) the overlay for the nodes of `snapshot`; `topics`: what may have changed
        since the last look. KernelError, ToolError, ConfigError: it can't be made now.
        """


class Ways:
    """The next hop to each peer, remembered until something about routes changes."""

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink
        self._query: Query | None = None
        self._hops: dict[IPv4Address, NextHop] = {}

    def forget(self) -> None:
        """Routes may have changed: ask again."""
        self._query = None

    def towards(
        self, addresses: Iterable[IPv4Address], query: Query
    ) -> Mapping[IPv4Address, NextHop]:
        """The next hop towards each of `addresses`; what did not change is the same object."""
        wanted = set(addresses)
        if query != self._query:
            found = resolve(self._netlink, wanted, query)
            before = self._hops
            self._hops = {a: before[a] if before.get(a) == hop else hop for a, hop in found.items()}
            self._query = query
        else:
            missing = wanted - self._hops.keys()
            self._hops |= resolve(self._netlink, missing, query) if missing else {}
            for address in self._hops.keys() - wanted:
                del self._hops[address]
        return self._hops
