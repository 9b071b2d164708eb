# SPDX-License-Identifier: Apache-2.0
"""In mode `adopt`: finds the peers in the kernel's entries, and their names in the source.

A route leads to a neighbour, the neighbour to a MAC, the MAC to an underlay address. With 5,000
peers it takes 20 ms to trace all of them, so only what has changed is traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from vxlane.host.entries import Entries, FdbEntry, Key, Neighbour, Route
from vxlane.sources.model import Backend, Node, Problem, derived_mac
from vxlane.util.difference import difference

Item = TypeVar("Item", Node, Problem)


class TracedPeers:
    """The peers that the kernel sends to, by pod CIDR as the routes have it."""

    def __init__(self, device: int, network: IPv4Network | None = None) -> None:
        self.peers: dict[Key, Node] = {}
        """Their `backend` is how the kernel reaches them, not what the source says."""
        self.problems: dict[Key, Problem] = {}
        """Where the source contradicts the kernel."""
        self._device = device
        """Ifindex of flannel.<VNI>; 0: there is none."""
        self._network = network
        """Of all pods: a plain route to a part of it leads to a peer."""
        self._source: Sequence[Node] = ()
        self._said: dict[Key, Node] = {}
        self._tunnelled: dict[Key, Node] = {}
        """Named by their pod CIDR."""
        self._direct: dict[Key, Route] = {}
        """Plain routes."""
        self._led: dict[Key, set[Key]] = {}
        """The key of a neighbour or FDB entry -> the keys of the routes that lead over it."""

    def follow(self, entries: Entries, changed: Iterable[Key]) -> None:
        """Trace the routes that lead over the `changed` keys of `entries`."""
        routes: set[Key] = set()
        for key in changed:
            if isinstance(key, tuple):
                routes.add(key)
            routes |= self._led.pop(key, set())
        for key in routes:
            self._trace(entries, key)
            self._name(key)

    def name(self, said: Sequence[Node]) -> None:
        """Take the names of the nodes that the source lists."""
        gone, come = difference(self._source, said)
        self._source = said
        for node in gone:
            del self._said[key_of(node)]
        self._said |= {key_of(node): node for node in come}
        for key in {key_of(node) for node in gone + come}:
            self._name(key)

    def _trace(self, entries: Entries, key: Key) -> None:
        self._direct.pop(key, None)
        self._tunnelled.pop(key, None)
        route = entries.get(key)
        if not isinstance(route, Route):
            return
        if route.device != self._device:
            if route.is_plain:
                self._direct[key] = route
            return
        self._led.setdefault(route.gateway, set()).add(key)
        neighbour = entries.get(route.gateway)
        if not isinstance(neighbour, Neighbour):
            return
        self._led.setdefault(neighbour.mac, set()).add(key)
        forwarding = entries.get(neighbour.mac)
        if isinstance(forwarding, FdbEntry):
            cidr = IPv4Network((route.network, route.prefix_len))
            address = IPv4Address(forwarding.address)
            self._tunnelled[key] = Node(str(cidr), address, cidr, neighbour.mac)

    def _name(self, key: Key) -> None:
        peer, problem = self._named(self._said.get(key), key)
        _put(self.peers, key, peer)
        _put(self.problems, key, problem)

    def _named(self, said: Node | None, key: Key) -> tuple[Node | None, Problem | None]:
        kernel, plain = self._tunnelled.get(key), self._direct.get(key)
        if said is None:
            return kernel or self._unnamed(plain), None
        if plain and plain.gateway == int(said.address):
            return dataclasses.replace(said, backend=Backend.HOST_GW), None
        if kernel is None:
            reason = f"the kernel has no entries yet that lead to its pods {said.pod_cidr}"
            return None, Problem(said.name, reason)
        peer = dataclasses.replace(kernel, name=said.name)
        if (kernel.address, kernel.vtep_mac) == (said.address, said.vtep_mac):
            return peer, None
        return peer, Problem(said.name, _difference(said, kernel))

    def _unnamed(self, plain: Route | None) -> Node | None:
        """The peer that a plain route leads to, where no source lists it."""
        if plain is None or not plain.leads_into(self._network):
            return None
        cidr = IPv4Network((plain.network, plain.prefix_len))
        name = str(cidr)
        return Node(name, IPv4Address(plain.gateway), cidr, derived_mac(name), Backend.HOST_GW)


def _put(items: dict[Key, Item], key: Key, item: Item | None) -> None:
    """Keep the item's place in the order: `difference` is faster then."""
    if item is None:
        items.pop(key, None)
    else:
        items[key] = item


def key_of(node: Node) -> Key:
    """The key of the route to a node's pods."""
    return int(node.pod_cidr.network_address), node.pod_cidr.prefixlen


def _difference(said: Node, kernel: Node) -> str:
    return (
        f"the kernel sends to {kernel.vtep_mac} at {kernel.address}, its entry says "
        f"{said.vtep_mac} at {said.address}; the kernel's word is taken"
    )
