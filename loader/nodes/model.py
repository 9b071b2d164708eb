"""What a node is, what every source of nodes gives, and the checks that all sources share.

Pure: no files, no sockets, no kernel. Imports nothing of vxlane but the errors.
"""

from __future__ import annotations

import enum
import hashlib
import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from vxlane.loader.errors import ConfigError

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


class Backend(enum.Enum):
    """How packets reach a node's pods, in flannel's words (annotation backend-type)."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"
    OTHER = "other"

    @classmethod
    def of(cls, word: str) -> Backend:
        """The backend that flannel's `word` names; OTHER for those vxlane has no path to."""
        try:
            return cls(word)
        except ValueError:
            return cls.OTHER


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster, ours or a peer."""

    name: str
    address: IPv4Address
    """Of its VTEP on the underlay (flannel's public-ip)."""
    pod_cidr: IPv4Network
    vtep_mac: str
    """Lower case, colons."""
    backend: Backend = Backend.VXLAN


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that can't be used as it stands, or that contradicts another."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """What this node tells the others; a source that can write publishes it."""

    address: IPv4Address
    backend: Backend
    vni: int
    vtep_mac: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole set of nodes as a source knows it now."""

    own: Node | None
    """This node; None while the source has not (or no longer) an entry for it."""
    peers: tuple[Node, ...]
    problems: tuple[Problem, ...] = ()
    network: IPv4Network | None = None
    """Of all pods, where the source knows it."""
    read_at: float | None = None
    """CLOCK_MONOTONIC seconds when the source was last known to be right; None: never read."""
    error: str = ""
    """Why the source can't be read now; empty while it can."""


NOTHING_READ = Snapshot(own=None, peers=())


class NodeSource(Protocol):
    """Gives the full set of nodes, and a descriptor that says when to look again.

    A source never raises after `start`: what goes wrong is the snapshot's `error`, and the nodes
    that it said last keep being said.
    """

    changed: int
    """A non-blocking descriptor (eventfd, inotify): readable = call `nodes` again. The caller
    reads it empty first, 4096 bytes at a time."""

    def start(self) -> None:
        """Begin to follow; returns at once. ConfigError: what a person gave can't ever work."""

    def nodes(self) -> Snapshot:
        """The set as known now, without waiting; `NOTHING_READ` before the first good read."""

    def announce(self, own: Announcement) -> None:
        """Publish this node, now and whenever it gets lost; a no-op where people write the set."""

    def ready(self) -> None:
        """This node's network is up: say so, where somebody waits for it."""

    def chosen_address(self) -> IPv4Address | None:
        """The underlay address that the cluster wants this node to have; None: it does not say."""

    def close(self) -> None:
        """Stop following and close `changed`; may be called twice."""


def derived_mac(name: str) -> str:
    """The VTEP MAC of a node that names none: the same on every node that computes it.

    Locally administered unicast, as flannel makes its random ones.
    """
    octets = bytearray(hashlib.sha256(f"vxlane vtep {name}".encode()).digest()[:6])
    octets[0] = octets[0] & 0xFE | 0x02
    return octets.hex(":")


def parse_mac(text: str) -> str:
    """`text` as a lower-case unicast MAC, or ConfigError."""
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ConfigError(f"MAC {text!r} is not six hexadecimal octets with colons")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ConfigError(f"MAC {text!r} is not a unicast address")
    return mac


def parse_address(text: str) -> IPv4Address:
    """`text` as an underlay address that a packet can be sent to, or ConfigError."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ConfigError(f"address {text!r} is not an IPv4 address") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ConfigError(f"address {text!r} can't be a node's underlay address")
    return address


def parse_cidr(text: str) -> IPv4Network:
    """`text` as a pod CIDR, or ConfigError."""
    try:
        cidr = IPv4Network(text)
    except ValueError as error:
        raise ConfigError(f"pod CIDR {text!r} is not an IPv4 network: {error}") from None
    if not 1 <= cidr.prefixlen <= 30:
        raise ConfigError(f"pod CIDR {text!r} must be between a /1 and a /30")
    return cidr


def agree(
    nodes: Iterable[Node],
    own_name: str,
    *,
    problems: Iterable[Problem] = (),
    network: IPv4Network | None = None,
    read_at: float | None = None,
    previous: Snapshot | None = None,
) -> Snapshot:
    """A snapshot in which no two nodes claim the same name, address, MAC or pods.

    Of two that do, this node stays before a peer, one that stood unchanged in `previous` before a
    new or changed one, then the first in `nodes`; the other becomes a Problem that names both.
    A node whose entry is refused here or in `problems` keeps its entry of `previous`, if that
    still fits: one wrong line takes nothing down.
    """
    before = {node.name: node for node in _all(previous)} if previous else {}
    reported = list(problems)
    refused = {problem.node for problem in reported}
    kept, newcomers = _sort_out(nodes, before, own_name)
    # What agreed in `previous` agrees now: with 10,000 nodes only the newcomers are looked at.
    claims = _Claims(kept)
    for node in newcomers:
        if reason := claims.conflict(node):
            reported.append(Problem(node.name, reason))
            refused.add(node.name)
        else:
            claims.take(node)
    for name in refused:
        if name in before and not claims.conflict(before[name]):
            claims.take(before[name])
    own = claims.names.pop(own_name, None)
    if own is None and own_name not in refused:
        reported.append(Problem(own_name, "is this node, and it has no entry of its own"))
    if own and network and not own.pod_cidr.subnet_of(network):
        reason = f"its pod CIDR {own.pod_cidr} is not inside the network {network}"
        reported.append(Problem(own_name, reason))
        own = None
    return Snapshot(own, tuple(claims.names.values()), tuple(reported), network, read_at)


def _sort_out(
    nodes: Iterable[Node], before: Mapping[str, Node], own_name: str
) -> tuple[Iterable[Node], list[Node]]:
    """The nodes that stand as they did `before`, and the new or changed in the order to weigh them.

    Of the former it is the very objects of `before`: later layers compare pointers.
    """
    kept: dict[str, Node] = {}
    newcomers = []
    for node in nodes:
        known = before.get(node.name)
        if known is not None and node.name not in kept and (known is node or known == node):
            kept[node.name] = known
        else:
            newcomers.append(node)
    if own_name in kept or not newcomers:
        return kept.values(), newcomers
    # This node comes before all others, so all others are weighed against it.
    everybody = [*newcomers, *kept.values()]
    everybody.sort(key=lambda node: (node.name != own_name, node.name not in kept))
    return (), everybody


def _all(snapshot: Snapshot) -> Iterator[Node]:
    if snapshot.own:
        yield snapshot.own
    yield from snapshot.peers


class _Claims:
    """Who holds which name, address, MAC and pod CIDR.

    Compares addresses as integers: with 10,000 nodes ipaddress' own operators take ten times as
    long, and this runs on every change of a node.
    """

    def __init__(self, agreed: Iterable[Node]) -> None:
        """`agreed`: nodes that are known not to contradict each other."""
        self.names = {node.name: node for node in agreed}
        holders = self.names.values()
        self._addresses = {int(node.address): node for node in holders}
        self._sorted_addresses = sorted(self._addresses)
        self._macs = {node.vtep_mac: node for node in holders}
        spans = ((_range(node.pod_cidr), node) for node in holders)
        self._ranges = {end: (start, node) for (start, end), node in spans}
        """End of a pod CIDR -> its start and holder."""
        self._ends = sorted(self._ranges)
        """Ascending: the CIDRs held never overlap."""

    def conflict(self, node: Node) -> str:
        """What of `node` someone else holds, in words; empty if nothing."""
        if node.name in self.names:
            return "is listed twice; the first entry counts"
        address = int(node.address)
        if holder := self._addresses.get(address):
            return f"its address {node.address} is that of node {holder.name!r}"
        if holder := self._macs.get(node.vtep_mac):
            return f"its VTEP MAC {node.vtep_mac} is that of node {holder.name!r}"
        start, end = _range(node.pod_cidr)
        if holder := self._overlapping(start, end):
            cidrs = f"{node.pod_cidr} overlaps {holder.pod_cidr}"
            return f"its pod CIDR {cidrs} of node {holder.name!r}"
        # A tunnel to an address among the pods would be routed into itself.
        if holder := self._overlapping(address, address):
            return f"its address {node.address} lies in the pod CIDR of node {holder.name!r}"
        at = bisect_left(self._sorted_addresses, start)
        if at < len(self._sorted_addresses) and self._sorted_addresses[at] <= end:
            holder = self._addresses[self._sorted_addresses[at]]
            return f"its pod CIDR {node.pod_cidr} holds the address of node {holder.name!r}"
        return ""

    def take(self, node: Node) -> None:
        """Record what `node` holds; the caller has seen that there is no conflict."""
        self.names[node.name] = node
        self._addresses[int(node.address)] = node
        insort(self._sorted_addresses, int(node.address))
        self._macs[node.vtep_mac] = node
        start, end = _range(node.pod_cidr)
        self._ranges[end] = start, node
        insort(self._ends, end)

    def _overlapping(self, start: int, end: int) -> Node | None:
        at = bisect_left(self._ends, start)
        if at == len(self._ends):
            return None
        held_from, holder = self._ranges[self._ends[at]]
        return holder if held_from <= end else None


def _range(cidr: IPv4Network) -> tuple[int, int]:
    start = int(cidr.network_address)
    return start, start + (1 << 32 - cidr.prefixlen) - 1
