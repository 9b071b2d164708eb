"""Next hops: asked of the kernel when something about routes changed, else remembered."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address

from vxlane.loader.agent.topics import Topic
from vxlane.loader.kernel.netlink import NetlinkSocket
from vxlane.loader.kernel.nexthops import NextHop, Query, resolve
from vxlane.loader.nodes.model import Node

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
