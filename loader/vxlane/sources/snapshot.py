# SPDX-License-Identifier: Apache-2.0
"""The whole set of nodes, the interface of its sources, and how conflicts in it are resolved.

Pure: no files, no sockets, no kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from vxlane.sources.claims import Claims
from vxlane.sources.model import Announcement, Node, Problem
from vxlane.sources.steering import Cluster
from vxlane.util.difference import difference


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole set of nodes as a source knows it now."""

    own: Node | None
    """This node. None: the source has no entry for it, or not any more."""
    peers: tuple[Node, ...]
    problems: tuple[Problem, ...] = ()
    network: IPv4Network | None = None
    """Of all pods, where the source knows it."""
    read_at: float | None = None
    """When the source was last known to be up to date (CLOCK_MONOTONIC, seconds). None: never."""
    error: str = ""
    """Why the source can't be read now. Empty: it can."""
    claims: Claims = field(default_factory=Claims, repr=False, compare=False)
    """What each node holds, for the next `agree`."""


NOTHING_READ = Snapshot(own=None, peers=())


class NodeSource(Protocol):
    """Gives the full set of nodes, and a descriptor that tells when to read it again.

    A source never raises after `start`. A failure is in the snapshot's `error`, next to the last
    known nodes.
    """

    changed: int
    """A non-blocking descriptor (eventfd, inotify): readable = call `on_event`."""

    @property
    def cluster(self) -> Cluster:
        """The cluster that controls the bypass of this node; `NoCluster` if there is none."""

    def start(self, served: Snapshot = NOTHING_READ) -> None:
        """Begin to follow, and return at once. ConfigError: the options can never work.

        `served` are the nodes that an earlier agent served. They decide conflicts (see `agree`),
        but are never returned.
        """

    def on_event(self) -> bool:
        """Read `changed` empty. True: `nodes` may give another set now."""

    def nodes(self) -> Snapshot:
        """The set as known now, without waiting. `NOTHING_READ` before the first good read."""

    def announce(self, own: Announcement) -> None:
        """Publish this node, now and whenever its entry is lost. No-op where people write it."""

    def ready(self) -> None:
        """Tell the cluster that this node's network is up, where the source can."""

    def chosen_address(self) -> IPv4Address | None:
        """The underlay address that the cluster wants this node to use. None: any."""

    def close(self) -> None:
        """Stop following and close `changed`; may be called twice."""


def remembered(own: Node, peers: Iterable[Node], network: IPv4Network | None) -> Snapshot:
    """The nodes that an earlier agent served, to be `previous` in the first `agree`."""
    claims = Claims()
    for node in (own, *peers):
        if not claims.conflict(node):
            claims.take(node)
    others = [node for name, node in claims.names.items() if name != own.name]
    return Snapshot(own, tuple(others), network=network, claims=claims)


def agree(
    nodes: Sequence[Node],
    own_name: str,
    *,
    problems: Iterable[Problem] = (),
    network: IPv4Network | None = None,
    read_at: float | None = None,
    previous: Snapshot = NOTHING_READ,
) -> Snapshot:
    """A snapshot in which no two nodes have the same name, MAC or pods.

    If two nodes do, one of them is kept: this node before a peer, then a node that is unchanged
    since `previous`, then the first one in `nodes`. The other one becomes a Problem that names
    both. A node whose entry is refused here or in `problems` keeps its entry from `previous` if
    that still fits, so that one wrong line breaks nothing. An unchanged node is the same object as
    in `previous`, at the same place, because later layers compare by identity.
    """
    claims, reported = previous.claims.copy(), list(problems)
    for node in _to_be_weighed(nodes, claims, own_name):
        if reason := claims.conflict(node):
            reported.append(Problem(node.name, reason))
        else:
            claims.take(node)
    refused = {problem.node for problem in reported}
    _keep_refused(refused, claims, previous.claims.names)
    reported.extend(_give_back_own_address(claims, own_name))
    for first, other in claims.shared():
        advice = "both are served; if one of them is no more, delete it"
        reason = f"its address {other.address} is that of node {first.name!r} too; {advice}"
        reported.append(Problem(other.name, reason))
    others = claims.names.copy()
    own = others.pop(own_name, None)
    if own is None and own_name not in refused:
        reason = "is this node, and it has no entry of its own; is --node-name right?"
        reported.append(Problem(own_name, reason))
    if own and network and not own.pod_cidr.subnet_of(network):
        reason = f"its pod CIDR {own.pod_cidr} is not inside the network {network}"
        reported.append(Problem(own_name, reason))
        own = None
    return Snapshot(own, tuple(others.values()), tuple(reported), network, read_at, claims=claims)


def _give_back_own_address(claims: Claims, own_name: str) -> list[Problem]:
    """Release all other nodes with this node's address: old entries of it, or mistakes.

    They are never served: they would route this node's packets to itself.
    """
    own = claims.names.get(own_name)
    others = [node for node in claims.with_address(own.address) if node != own] if own else []
    for other in others:
        claims.give_back(other)
    advice = "it is not served; if it is this node under an earlier name, delete it"
    return [
        Problem(other.name, f"its address {other.address} is this node's own; {advice}")
        for other in others
    ]


def _keep_refused(refused: set[str], claims: Claims, before: dict[str, Node]) -> None:
    """Give nodes whose entry is refused their entries from `before`, if these still fit.

    The names are in the order of `before`, with new nodes at the end.
    """
    for name in refused & before.keys():
        if not claims.conflict(before[name]):
            claims.take(before[name])
    ordered = before | claims.names
    for name in before.keys() - claims.names.keys():
        del ordered[name]
    claims.names = ordered


def _to_be_weighed(nodes: Sequence[Node], claims: Claims, own_name: str) -> list[Node]:
    """The new and changed `nodes`, in the order in which they are to be checked for conflicts.

    Releases the claims of nodes that are gone or changed.
    """
    gone, come = difference(tuple(claims.names.values()), nodes)
    lost = {node.name: node for node in gone}
    newcomers = []
    for node in come:
        if lost.get(node.name) == node:
            del lost[node.name]
        else:
            newcomers.append(node)
    for node in lost.values():
        claims.give_back(node)
    if own_name in claims.names or not newcomers:
        return newcomers
    # This node comes before all others, so all others are weighed against it.
    kept = list(claims.names.values())
    for node in kept:
        claims.give_back(node)
    newcomers.sort(key=lambda node: node.name != own_name)
    at = 1 if newcomers[0].name == own_name else 0
    return [*newcomers[:at], *kept, *newcomers[at:]]
