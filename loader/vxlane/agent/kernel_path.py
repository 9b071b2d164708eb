# SPDX-License-Identifier: Apache-2.0
"""The kernel path of a node: who announces it, and the backend that makes or follows it."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.config import Config, Mode
from vxlane.host.devices import Devices
from vxlane.host.events import Events
from vxlane.host.undo import UndoFile
from vxlane.overlay.adopted import AdoptedOverlay
from vxlane.overlay.backend import Attempt, OverlayBackend, OverlayState
from vxlane.overlay.owned import OwnedOverlay
from vxlane.sources.model import Announcement
from vxlane.sources.snapshot import NodeSource, Snapshot
from vxlane.util.dirty import Dirty


class KernelPath:
    """The way that packets take without a bypass: flannel.1, routes, entries and rules."""

    def __init__(
        self,
        config: Config,
        devices: Devices,
        *,
        undo: UndoFile,
        source: NodeSource,
        attempt: Attempt,
    ) -> None:
        self.overlay: OverlayState | None = None
        """What the last reconcile found; None: nothing yet."""
        self._mode = config.mode
        self._source = source
        self._attempt = attempt
        self._announced: Announcement | None = None
        self._backend: OverlayBackend = (
            AdoptedOverlay(config, devices)
            if config.mode is Mode.ADOPT
            else OwnedOverlay(config, devices, undo=undo, source=source)
        )

    @property
    def device(self) -> int:
        """Ifindex of the overlay's device; 0: none yet, or none at all."""
        return self.overlay.device if self.overlay else 0

    @property
    def devices(self) -> frozenset[int]:
        """Ifindexes of the devices that it sends by: the overlay's device and the NICs."""
        return frozenset({self.device}) | (self.overlay.nics if self.overlay else frozenset())

    def reconcile(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState | None:
        """Compare and repair what is `dirty`.

        None: there is no kernel path yet, or it could not be read.
        """
        found = None
        with self._attempt("overlay"):
            found = self._read(snapshot, dirty)
        if found:
            self.overlay = found
            self._backend.apply(found, self._attempt)
        return found

    def on_event(self, events: Events) -> Dirty:
        """What is to be reconciled, since entries changed after the last reconcile."""
        return self._backend.on_event(events)

    def resync(self) -> Iterator[Dirty]:
        """Compare with the kernel in steps of some milliseconds; each says what to reconcile."""
        return self._backend.resync()

    def _read(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState | None:
        own = snapshot.own
        if snapshot.read_at is not None and (dirty & Dirty.HOST or not self._announced):
            announcement = self._backend.announcement(own)
            if announcement and announcement != self._announced:
                self._source.announce(announcement)
                self._announced = announcement
        if own is None and self._mode is Mode.OWN:
            # The source was not read yet, or reports why this node is missing.
            return None
        return self._backend.reconcile(snapshot, dirty)
