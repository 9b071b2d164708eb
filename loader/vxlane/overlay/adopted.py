# SPDX-License-Identifier: Apache-2.0
"""Mode `adopt`: flanneld or k3s makes the overlay; here it is only read.

The kernel's own entries say who the peers are (`traced`). The source of nodes names them; where it
says otherwise, the kernel wins and the difference is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from vxlane.config import Config
from vxlane.errors import ConfigError
from vxlane.host import vtep
from vxlane.host.devices import Device, Devices
from vxlane.host.events import Events
from vxlane.host.nexthops import Query, resolve
from vxlane.overlay.backend import Attempt, OverlayState
from vxlane.overlay.desired import AdoptedRouting, exits_of
from vxlane.overlay.keepers import EntryKeeper
from vxlane.overlay.paths import Paths
from vxlane.overlay.traced import TracedPeers
from vxlane.sources.model import Announcement, Node
from vxlane.sources.snapshot import Snapshot
from vxlane.util.dirty import Dirty


class AdoptedOverlay:
    """Follows an overlay that others keep; see `OverlayBackend`."""

    def __init__(self, config: Config, devices: Devices) -> None:
        self._name = vtep.name_of(config.network.vni)
        self._devices = devices
        self._paths = Paths(partial(resolve, devices.socket))
        self._entries = EntryKeeper(devices.socket)
        self._device: tuple[Device, vtep.Wiring] | None = None
        self._traced = TracedPeers(0)

    def announcement(self, own: Node | None) -> Announcement | None:
        """Nothing: flanneld announces this node."""

    def on_event(self, events: Events) -> Dirty:
        """See `OverlayBackend`. What events say is taken over: to read 5,000 peers takes 0.1 s."""
        if self._entries.doubts(events):
            return Dirty.ENTRIES
        changed = self._entries.follow(events)
        self._traced.follow(self._entries.actual, changed)
        return Dirty.NODES if changed else Dirty(0)

    def reconcile(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState:
        """See `OverlayBackend`."""
        if dirty & Dirty.ROUTES:
            self._paths.forget()
        if dirty & Dirty.HOST or self._device is None:
            before, self._device = self._device, self._find()
            if before is None or before[0].index != self._device[0].index:
                self._entries = EntryKeeper(self._devices.socket)
                self._traced = TracedPeers(self._device[0].index)
                dirty |= Dirty.ENTRIES
        device, wiring = self._device
        if dirty & Dirty.ENTRIES:
            changed = self._entries.read(device.index)
            self._traced.follow(self._entries.actual, changed)
        self._traced.name(snapshot.peers)
        peers = tuple(self._traced.peers.values())
        paths = self._paths.to(peers, Query(wiring.local, wiring.port), AdoptedRouting())
        return OverlayState(
            device=device.index,
            device_mtu=device.mtu,
            address=wiring.local,
            vtep_mac=device.mac,
            vni=wiring.vni,
            port=wiring.port,
            underlay=wiring.underlay,
            paths=paths,
            exits=exits_of(paths),
            problems=tuple(self._traced.problems.values()),
        )

    def resync(self) -> Iterator[Dirty]:
        """See `OverlayBackend`."""
        yield from self._paths.resync()
        if self._device:
            yield from self._entries.resync(self._device[0].index)

    def apply(self, overlay: OverlayState, attempt: Attempt) -> None:
        """Nothing: flanneld makes it all."""

    def _find(self) -> tuple[Device, vtep.Wiring]:
        device = self._devices.by_name(self._name)
        wiring = vtep.wiring_of(self._devices, self._name)
        if device is None or wiring is None:
            advice = "is flanneld or k3s running? it is waited for"
            raise ConfigError(f"there is no VXLAN device {self._name} to adopt; {advice}")
        return device, wiring
