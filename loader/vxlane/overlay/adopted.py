# SPDX-License-Identifier: Apache-2.0
"""Mode `adopt`: flanneld or k3s makes the overlay, and the agent only reads it.

The kernel's entries say who the peers are (`traced`) and which device leads to them (`local_end`).
The source of nodes gives their names. If it contradicts the kernel, the kernel's entries are used
and the difference is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network

from vxlane.config import Config
from vxlane.host import subnet_env
from vxlane.host.devices import Devices
from vxlane.host.entries import Key
from vxlane.host.events import Events
from vxlane.host.nexthops import Query, resolve
from vxlane.overlay.backend import Attempt, OverlayState
from vxlane.overlay.desired import AdoptedRouting, exits_of
from vxlane.overlay.keepers import EntryKeeper
from vxlane.overlay.local_end import LocalEnd, find
from vxlane.overlay.paths import Paths
from vxlane.overlay.traced import TracedPeers, key_of
from vxlane.sources.model import Announcement, Backend, Node, Problem
from vxlane.sources.snapshot import Snapshot
from vxlane.util.dirty import Dirty

log = logging.getLogger(__name__)


class AdoptedOverlay:
    """Follows an overlay that another program makes; see `OverlayBackend`."""

    def __init__(self, config: Config, devices: Devices) -> None:
        self._config = config
        self._devices = devices
        self._paths = Paths(partial(resolve, devices.socket))
        self._entries = EntryKeeper(devices.socket)
        self._end: LocalEnd | None = None
        self._network: IPv4Network | None = None
        self._traced = TracedPeers(0)
        self._reached: frozenset[Key] = frozenset()
        """Peers, by pod CIDR, that the last reconcile found."""
        self._lost: frozenset[Key] = frozenset()
        """Peers that were reached over an earlier device, and are not reached now."""

    def announcement(self, own: Node | None) -> Announcement | None:
        """Nothing: flanneld announces this node."""

    def on_event(self, events: Events) -> Dirty:
        """See `OverlayBackend`. Entries are taken from events: reading 5,000 peers takes 0.1 s."""
        if self._entries.doubts(events):
            return Dirty.ENTRIES
        changed = self._entries.follow(events)
        self._traced.follow(self._entries.actual, changed)
        return Dirty.NODES if changed else Dirty(0)

    def reconcile(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState:
        """See `OverlayBackend`."""
        if dirty & Dirty.ROUTES:
            self._paths.forget()
        if (dirty & Dirty.HOST or self._end is None) and self._has_another_end(snapshot):
            dirty |= Dirty.ENTRIES
        assert self._end is not None
        device, wiring = self._end.device, self._end.wiring
        if dirty & Dirty.ENTRIES:
            changed = self._entries.read(self._end.tunnel)
            self._traced.follow(self._entries.actual, changed)
        self._traced.name(snapshot.peers)
        self._reached = frozenset(self._traced.peers)
        self._lost = self._still_lost(snapshot)
        peers = tuple(self._traced.peers.values())
        paths = self._paths.to(peers, Query(wiring.local, wiring.port), AdoptedRouting())
        return OverlayState(
            device=self._end.tunnel,
            device_mtu=device.mtu,
            address=wiring.local,
            vtep_mac=device.mac,
            vni=wiring.vni,
            port=wiring.port,
            underlay=wiring.underlay,
            paths=paths,
            exits=exits_of(paths),
            problems=(*self._traced.problems.values(), *self._problems(self._end, snapshot)),
        )

    def resync(self) -> Iterator[Dirty]:
        """See `OverlayBackend`."""
        yield from self._paths.resync()
        if self._end:
            yield from self._entries.resync(self._end.tunnel)

    def apply(self, overlay: OverlayState, attempt: Attempt) -> None:
        """Does nothing: flanneld makes the kernel path."""

    def _has_another_end(self, snapshot: Snapshot) -> bool:
        """Find the device in use. True: it has changed, so entries are to be read again."""
        before, network = self._end, snapshot.network or self._pod_network()
        self._end = find(self._devices, self._config, network=network)
        is_same = before is not None and before.tunnel == self._end.tunnel
        if is_same and network == self._network:
            return False
        if not is_same:
            self._lost |= self._reached
        log.info("the overlay goes by %s", self._end.device.name)
        self._network = network
        self._entries = EntryKeeper(self._devices.socket)
        self._traced = TracedPeers(self._end.tunnel, network)
        return True

    def _pod_network(self) -> IPv4Network | None:
        """The network of all pods in flanneld's subnet.env, for a source that does not know it."""
        said = subnet_env.read(self._config.subnet_file).get("FLANNEL_NETWORK", "")
        try:
            # A cluster with several networks has a list.
            return IPv4Network(said.partition(",")[0])
        except ValueError:
            return self._config.network.cidr

    def _still_lost(self, snapshot: Snapshot) -> frozenset[Key]:
        lost = self._lost - self._reached
        if not lost or not snapshot.peers:
            return lost
        # Nodes that the source no longer lists are not missed.
        return lost & {key_of(node) for node in snapshot.peers}

    def _problems(self, end: LocalEnd, snapshot: Snapshot) -> Iterator[Problem]:
        """What flanneld has left wrong about its device."""
        name, mac, own = end.device.name, end.device.mac, snapshot.own
        if not end.is_tunnel:
            return
        advice = "restart flanneld on this node"
        if self._lost:
            count, why = len(self._lost), "flanneld 0.28 does not write them again"
            said = f"{name} is new and lacks the routes to {count} peers of the one before"
            yield Problem(self._config.node_name, f"{said}; {why}: if they stay away, {advice}")
        if own and own.backend is Backend.VXLAN and own.vtep_mac != mac:
            said = f"{name} has the MAC {mac}, and peers send to {own.vtep_mac}"
            yield Problem(own.name, f"{said}, which was published; {advice}")
