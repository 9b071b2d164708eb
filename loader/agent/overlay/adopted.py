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
from vxlane.loader.kernel.entries import Entries, Forwarding, Neighbour, Route
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
        self._found = Found()

    def announcement(self, own: Node | None) -> Announcement | None:
        """Nothing: flanneld announces this node."""

    def contradicts(self, news: News) -> bool:
        """See `Overlays`."""
        return self._entries.contradicts(news)

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
            self._found = find(self._entries.read(link.index), link.index)
        peers, problems = named(self._found, snapshot)
        plan = AdoptedPlan(frozenset(self._found.direct))
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


@dataclass(frozen=True, slots=True)
class Found:
    """What the kernel's entries say of peers, by pod CIDR."""

    tunnelled: Mapping[IPv4Network, Node] = field(default_factory=dict)
    """Named by their pod CIDR."""
    direct: Mapping[IPv4Network, IPv4Address] = field(default_factory=dict)
    """Gateways of plain routes; whether these are peers, the source of nodes knows."""


def find(entries: Entries, device: int) -> Found:
    """The peers that the kernel sends to through `device` (ifindex) or by a plain route."""
    tunnelled, direct = {}, {}
    for route in entries.values():
        if not isinstance(route, Route):
            continue
        cidr = IPv4Network((route.network, route.prefix_len))
        neighbour = entries.get(route.gateway)
        if route.device != device:
            direct[cidr] = IPv4Address(route.gateway)
        elif isinstance(neighbour, Neighbour):
            forwarding = entries.get(neighbour.mac)
            if isinstance(forwarding, Forwarding):
                address = IPv4Address(forwarding.address)
                tunnelled[cidr] = Node(str(cidr), address, cidr, neighbour.mac)
    return Found(tunnelled, direct)


def named(found: Found, snapshot: Snapshot) -> tuple[list[Node], list[Problem]]:
    """The kernel's peers under the names of `snapshot`, and what that says otherwise."""
    rest = dict(found.tunnelled)
    nodes, problems = [], []
    for said in snapshot.peers:
        kernel = rest.pop(said.pod_cidr, None)
        if kernel is None and found.direct.get(said.pod_cidr) == said.address:
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
