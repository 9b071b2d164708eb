# SPDX-License-Identifier: Apache-2.0
"""The path to every peer. The kernel is asked for each next hop once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from vxlane.host.nexthops import NextHop, Query
from vxlane.overlay.desired import Path, Routing
from vxlane.sources.model import Node
from vxlane.util.difference import difference
from vxlane.util.dirty import Dirty

Resolve = Callable[[Iterable[IPv4Address], Query], Mapping[IPv4Address, NextHop]]

_AT_A_TIME = 250
"""Next hops; 10 ms."""


class Paths:
    """Remembers the path to each peer. A path that did not change is the same object as before.

    Next hops are kept by address as an integer: to hash 10,000 `ipaddress` objects takes 10 ms.
    """

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._query: Query | None = None
        self._routing: Routing | None = None
        self._peers: Sequence[Node] = ()
        """The peers of `_paths`. Empty: every path is to be made again."""
        self._hops: dict[int, NextHop] = {}
        self._paths: dict[str, Path] = {}

    def forget(self) -> None:
        """Routes may have changed: ask again."""
        self._query = None

    def to(self, peers: Sequence[Node], query: Query, routing: Routing) -> tuple[Path, ...]:
        """The path to each of `peers`, in any order."""
        if query != self._query:
            before, self._hops = (
                self._hops,
                self._query_hops({int(peer.address) for peer in peers}, query),
            )
            for address, hop in self._hops.items():
                if before.get(address) == hop:
                    self._hops[address] = before[address]
            self._query, self._peers = query, ()
        if routing != self._routing:
            self._routing, self._peers, self._paths = routing, (), {}
        gone, come = difference(self._peers, peers)
        self._hops |= self._query_hops(
            {int(peer.address) for peer in come} - self._hops.keys(), query
        )
        lost = {peer.name for peer in gone} if self._peers else set(self._paths)
        for name in lost - {peer.name for peer in come}:
            del self._paths[name]
        for peer in come:
            hop, known = self._hops[int(peer.address)], self._paths.get(peer.name)
            if known is None or known.node is not peer or known.hop is not hop:
                path = routing.path(peer, hop)
                if hop.reason and known and known.node == peer and not path.entries:
                    # It can't be reached now. The old routes stay, because it may come back.
                    path = dataclasses.replace(path, entries=known.entries)
                self._paths[peer.name] = path
        self._peers = peers
        return tuple(self._paths.values())

    def resync(self) -> Iterator[Dirty]:
        """Compare the remembered next hops with the kernel's, some at a time."""
        used = {int(peer.address) for peer in self._peers}
        self._hops = {address: hop for address, hop in self._hops.items() if address in used}
        addresses = list(self._hops)
        for start in range(0, len(addresses), _AT_A_TIME):
            some = self._hops.keys() & addresses[start : start + _AT_A_TIME]
            found = self._query_hops(some, self._query) if self._query else {}
            other = {address: hop for address, hop in found.items() if self._hops[address] != hop}
            if other:
                self._hops |= other
                self._peers = ()
            yield Dirty.NODES if other else Dirty(0)

    def _query_hops(self, addresses: Iterable[int], query: Query) -> dict[int, NextHop]:
        found = self._resolve(map(IPv4Address, addresses), query)
        return {int(address): hop for address, hop in found.items()}
