# SPDX-License-Identifier: Apache-2.0
"""No source of nodes: in mode `adopt` the kernel's own entries say who the peers are."""

from __future__ import annotations

import os
import time
from ipaddress import IPv4Address

from vxlane.sources.model import Announcement
from vxlane.sources.snapshot import NOTHING_READ, Snapshot
from vxlane.sources.steering import NoCluster


class NoSource:
    """Has no nodes, never changes, and is always up to date."""

    def __init__(self) -> None:
        self.changed = -1
        self.cluster = NoCluster()

    def start(self, served: Snapshot = NOTHING_READ) -> None:  # noqa: ARG002 (nothing contradicts)
        """See `NodeSource`."""
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def on_event(self) -> bool:
        """False: there are no events."""
        return False

    def nodes(self) -> Snapshot:
        """Never any node."""
        return Snapshot(own=None, peers=(), read_at=time.monotonic())

    def announce(self, own: Announcement) -> None:
        """Does nothing."""

    def ready(self) -> None:
        """Does nothing."""

    def chosen_address(self) -> IPv4Address | None:
        """None."""
        return None

    def close(self) -> None:
        """See `NodeSource`."""
        if self.changed >= 0:
            os.close(self.changed)
            self.changed = -1
