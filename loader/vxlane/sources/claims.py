# SPDX-License-Identifier: Apache-2.0
"""Which node holds which name, MAC and pod CIDR, so that no two nodes hold the same.

Two nodes may share an address: a node that was installed again or renamed stays in the list under
its old name until someone deletes that. flannel makes the routes of both, and so does vxlane. Only
nodes with the same address may share a MAC: the VXLAN device has one FDB entry for it, so a node
with another address would get the packets of the first.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, insort
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from vxlane.sources.model import Node


class Claims:
    """The names, addresses, MACs and pod CIDRs of a set of nodes without conflicts.

    Addresses are compared as integers: the operators of ipaddress take ten times as long.
    """

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self._addresses: dict[int, tuple[Node, ...]] = {}
        self._shared: set[int] = set()
        """Addresses of more than one node."""
        self._sorted_addresses: list[int] = []
        self._macs: dict[str, tuple[Node, ...]] = {}
        """Several nodes may have one MAC if they have the same address."""
        self._ranges: dict[int, tuple[int, Node]] = {}
        """End of a pod CIDR -> its start and holder."""
        self._ends: list[int] = []
        """Ascending: the CIDRs held never overlap."""

    def copy(self) -> Claims:
        """A copy that can be changed."""
        other = Claims()
        vars(other).update((name, copy.copy(held)) for name, held in vars(self).items())
        return other

    def conflict(self, node: Node) -> str:
        """A sentence about what another node holds already. Empty: there is no conflict."""
        if node.name in self.names:
            return "is listed twice; the first entry counts"
        for other in self._macs.get(node.vtep_mac, ()):
            if other.address != node.address:
                return f"its VTEP MAC {node.vtep_mac} is that of node {other.name!r}"
        start, end = _range(node.pod_cidr)
        if holder := self._overlapping(start, end):
            cidrs = f"{node.pod_cidr} overlaps {holder.pod_cidr}"
            return f"its pod CIDR {cidrs} of node {holder.name!r}"
        # A tunnel to an address among the pods would be routed into itself.
        address = int(node.address)
        if holder := self._overlapping(address, address):
            return f"its address {node.address} lies in the pod CIDR of node {holder.name!r}"
        at = bisect_left(self._sorted_addresses, start)
        if at < len(self._sorted_addresses) and self._sorted_addresses[at] <= end:
            holder = self._addresses[self._sorted_addresses[at]][0]
            return f"its pod CIDR {node.pod_cidr} holds the address of node {holder.name!r}"
        return ""

    def take(self, node: Node) -> None:
        """Record what `node` holds. The caller has checked that there is no conflict."""
        self.names[node.name] = node
        address = int(node.address)
        self._hold(address, (*self._addresses.get(address, ()), node))
        insort(self._sorted_addresses, address)
        self._macs[node.vtep_mac] = (*self._macs.get(node.vtep_mac, ()), node)
        start, end = _range(node.pod_cidr)
        self._ranges[end] = start, node
        insort(self._ends, end)

    def give_back(self, node: Node) -> None:
        """Release what `node` holds. It must be one of `names`."""
        del self.names[node.name]
        address = int(node.address)
        self._hold(address, tuple(other for other in self._addresses[address] if other != node))
        del self._sorted_addresses[bisect_left(self._sorted_addresses, address)]
        macs = tuple(other for other in self._macs.pop(node.vtep_mac) if other != node)
        if macs:
            self._macs[node.vtep_mac] = macs
        _, end = _range(node.pod_cidr)
        del self._ranges[end]
        del self._ends[bisect_left(self._ends, end)]

    def with_address(self, address: IPv4Address) -> tuple[Node, ...]:
        """All nodes with this address."""
        return self._addresses.get(int(address), ())

    def shared(self) -> Iterator[tuple[Node, Node]]:
        """Pairs: the first node with an address, and another one with the same address."""
        for address in sorted(self._shared):
            first, *others = self._addresses[address]
            yield from ((first, other) for other in others)

    def _hold(self, address: int, holders: tuple[Node, ...]) -> None:
        if holders:
            self._addresses[address] = holders
        else:
            del self._addresses[address]
        if len(holders) > 1:
            self._shared.add(address)
        else:
            self._shared.discard(address)

    def _overlapping(self, start: int, end: int) -> Node | None:
        at = bisect_left(self._ends, start)
        if at == len(self._ends):
            return None
        held_from, holder = self._ranges[self._ends[at]]
        return holder if held_from <= end else None


def _range(cidr: IPv4Network) -> tuple[int, int]:
    start = int(cidr.network_address)
    return start, start + (1 << 32 - cidr.prefixlen) - 1
