"""What the rest of the agent needs to know of this node's overlay, whoever made it.

`owned` makes it, `adopted` reads it; both answer with an `Overlay`, and both use the remembered
next hops that are here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from vxlane.loader.agent.desired import Path
from vxlane.loader.agent.topics import Topic
from vxlane.loader.kernel.events import News
from vxlane.loader.kernel.netlink import NetlinkSocket
from vxlane.loader.kernel.nexthops import NextHop, Query, resolve
from vxlane.loader.nodes.model import Announcement, Node, Problem, Snapshot


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

    @property
    def nics(self) -> frozenset[int]:
        """Ifindexes of the interfaces that packets of peers come and go by."""
        used = {path.hop.ifindex for path in self.paths if path.way is not None}
        return frozenset((used | {self.underlay}) - {0})


Steps = Mapping[str, Callable[[], None]]


class Overlays(Protocol):
    """Keeps, or follows, this node's overlay."""

    def announcement(self, own: Node | None) -> Announcement | None:
        """What this node has to tell the others; None: someone else tells them."""

    def contradicts(self, news: News) -> bool:
        """Whether an event says other than what the last look left behind."""

    def look(self, snapshot: Snapshot, topics: Topic) -> Overlay:
        """Make (or read) the device and find the way to each node of `snapshot`; `topics`: what
        may have changed since the last look. KernelError, ConfigError: it can't be made now.
        """

    def patrol(self) -> Iterator[Topic]:
        """Compare the overlay with the kernel's, a few milliseconds' worth at a time; each time
        what has to be looked at.
        """

    def steps(self) -> Steps:
        """What then is to be made, by name and in order; each may fail without the others."""


_AT_A_TIME = 250
"""Next hops; 10 ms."""


class Ways:
    """The next hop to each peer, remembered until something about routes changes.

    By address as an integer: hashing 10,000 of `ipaddress`' objects takes 10 ms.
    """

    def __init__(self, netlink: NetlinkSocket) -> None:
        self._netlink = netlink
        self._query: Query | None = None
        self._hops: dict[int, NextHop] = {}

    def forget(self) -> None:
        """Routes may have changed: ask again."""
        self._query = None

    def towards(self, peers: Iterable[Node], query: Query) -> Mapping[int, NextHop]:
        """The next hop towards each of `peers`; what did not change is the same object."""
        wanted = {int(peer.address) for peer in peers}
        if query != self._query:
            before, self._hops = self._hops, self._resolve(wanted, query)
            for address, hop in self._hops.items():
                if before.get(address) == hop:
                    self._hops[address] = before[address]
            self._query = query
        else:
            self._hops |= self._resolve(wanted - self._hops.keys(), query)
            for address in self._hops.keys() - wanted:
                del self._hops[address]
        return self._hops

    def patrol(self) -> Iterator[Topic]:
        """Ask for a few next hops at a time whether they are what is remembered."""
        addresses = list(self._hops)
        for start in range(0, len(addresses), _AT_A_TIME):
            some = self._hops.keys() & addresses[start : start + _AT_A_TIME]
            found = self._resolve(some, self._query) if self._query else {}
            other = {address: hop for address, hop in found.items() if self._hops[address] != hop}
            self._hops |= other
            yield Topic.NODES if other else Topic(0)

    def _resolve(self, addresses: Collection[int], query: Query) -> dict[int, NextHop]:
        if not addresses:
            return {}
        found = resolve(self._netlink, map(IPv4Address, addresses), query)
        return {int(address): hop for address, hop in found.items()}
