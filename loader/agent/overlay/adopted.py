"""Mode `adopt`: flanneld or k3s makes the overlay; here it is only read.

The kernel's own entries say who the peers are: a route leads to a neighbour, that to a MAC, that
to an underlay address. The source of nodes names them; where it says otherwise, the kernel wins
and the difference is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from vxlane.loader.agent.config import Config
from vxlane.loader.agent.overlay.desired import AdoptedPlan, exits_of
from vxlane.loader.agent.overlay.keepers import EntryKeeper
from vxlane.loader.agent.overlay.overlay import Overlay, Steps
from vxlane.loader.agent.overlay.paths import Paths
from vxlane.loader.agent.topics import Topic
from vxlane.loader.errors import ConfigError
from vxlane.loader.kernel import vtep
from vxlane.loader.kernel.entries import Entries, Forwarding, Key, Neighbour, Route
from vxlane.loader.kernel.events import News
from vxlane.loader.kernel.links import Link, Links
from vxlane.loader.kernel.netlink import NetlinkSocket
from vxlane.loader.kernel.nexthops import Query, resolve
from vxlane.loader.nodes.model import Announcement, Node, Problem
from vxlane.loader.nodes.snapshot import Snapshot


class AdoptedOverlay:
    """Follows an overlay that others keep; see `Overlays`."""

    def __init__(self, config: Config, links: Links, *, netlink: NetlinkSocket) -> None:
        self._name = vtep.name_of(config.network.vni)
        self._links = links
        self._paths = Paths(partial(resolve, netlink))
        self._entries = EntryKeeper(netlink)
        self._device: tuple[Link, vtep.Wiring] | None = None
        self._found = NOTHING_FOUND

    def announcement(self, own: Node | None) -> Announcement | None:
        """Nothing: flanneld announces this node."""

    def heard(self, news: News) -> Topic:
        """See `Overlays`. What events say is taken over: to read 5,000 peers takes 0.1 s."""
        if self._entries.doubts(news):
            return Topic.ENTRIES
        return Topic.NODES if self._entries.follow(news) else Topic(0)

    def look(self, snapshot: Snapshot, topics: Topic) -> Overlay:
        """See `Overlays`."""
        if topics & Topic.ROUTES:
            self._paths.forget()
        if topics & Topic.HOST or self._device is None:
            before, self._device = self._device, self._find()
            if before is None or before[0].index != self._device[0].index:
                topics |= Topic.ENTRIES
        link, wiring = self._device
        if topics & Topic.ENTRIES:
            self._entries.read(link.index)
        self._found = find(self._entries.actual, link.index, self._found)
        peers, problems = named(self._found, snapshot)
        plan = AdoptedPlan(frozenset(map(IPv4Network, self._found.direct)))
        paths = self._paths.to(peers, Query(wiring.local, wiring.port), plan)
        return Overlay(
            device=link.index,
            device_mtu=link.mtu,
            address=wiring.local,
            vtep_mac=link.mac,
            vni=wiring.vni,
            port=wiring.port,
            underlay=wiring.underlay,
            paths=paths,
            exits=exits_of(paths),
            problems=tuple(problems),
        )

    def patrol(self) -> Iterator[Topic]:
        """See `Overlays`."""
        yield from self._paths.patrol()
        if self._device:
            yield from self._entries.patrol(self._device[0].index)

    def steps(self) -> Steps:
        """Nothing: flanneld makes it all."""
        return {}

    def _find(self) -> tuple[Link, vtep.Wiring]:
        link = self._links.by_name(self._name)
        wiring = vtep.wiring_of(self._links, self._name)
        if link is None or wiring is None:
            advice = "is flanneld or k3s running? it is waited for"
            raise ConfigError(f"there is no VXLAN device {self._name} to adopt; {advice}")
        return link, wiring


Carriers = tuple[Route, Neighbour, Forwarding]
"""The entries that lead to one peer."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the kernel's entries say of peers, by pod CIDR as the routes have it."""

    tunnelled: Mapping[Key, Node] = field(default_factory=dict)
    """Named by their pod CIDR."""
    carriers: Mapping[Key, Carriers] = field(default_factory=dict)
    """What each of them was made of."""
    direct: Mapping[Key, IPv4Address] = field(default_factory=dict)
    """Gateways of plain routes; whether these are peers, the source of nodes knows."""


NOTHING_FOUND = Found()


def find(entries: Entries, device: int, before: Found = NOTHING_FOUND) -> Found:
    """The peers that the kernel sends to through `device` (ifindex) or by a plain route.

    One that `before` found by the same entries is the very object.
    """
    tunnelled: dict[Key, Node] = {}
    carriers: dict[Key, Carriers] = {}
    direct = {}
    for key, route in entries.items():
        if not isinstance(route, Route):
            continue
        if route.device != device:
            direct[key] = IPv4Address(route.gateway)
            continue
        neighbour = entries.get(route.gateway)
        forwarding = entries.get(neighbour.mac) if isinstance(neighbour, Neighbour) else None
        if isinstance(neighbour, Neighbour) and isinstance(forwarding, Forwarding):
            carriers[key] = found = route, neighbour, forwarding
            is_known = before.carriers.get(key) == found
            tunnelled[key] = before.tunnelled[key] if is_known else _node(*found)
    return Found(tunnelled, carriers, direct)


def _node(route: Route, neighbour: Neighbour, forwarding: Forwarding) -> Node:
    cidr = IPv4Network((route.network, route.prefix_len))
    return Node(str(cidr), IPv4Address(forwarding.address), cidr, neighbour.mac)


def _key(cidr: IPv4Network) -> Key:
    return int(cidr.network_address), cidr.prefixlen


def named(found: Found, snapshot: Snapshot) -> tuple[list[Node], list[Problem]]:
    """The kernel's peers under the names of `snapshot`, and what that says otherwise."""
    rest = dict(found.tunnelled)
    nodes, problems = [], []
    for said in snapshot.peers:
        key = _key(said.pod_cidr)
        kernel = rest.pop(key, None)
        if kernel is None and found.direct.get(key) == said.address:
            nodes.append(said)
        elif kernel is None:
            reason = f"the kernel has no entries yet that lead to its pods {said.pod_cidr}"
            problems.append(Problem(said.name, reason))
        elif (kernel.address, kernel.vtep_mac) == (said.address, said.vtep_mac):
            nodes.append(said)
        else:
            nodes.append(dataclasses.replace(kernel, name=said.name))
            problems.append(Problem(said.name, _difference(said, kernel)))
    return nodes + list(rest.values()), problems


def _difference(said: Node, kernel: Node) -> str:
    return (
        f"the kernel sends to {kernel.vtep_mac} at {kernel.address}, its entry says "
        f"{said.vtep_mac} at {said.address}; the kernel's word is taken"
    )
