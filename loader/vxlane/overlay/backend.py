# SPDX-License-Identifier: Apache-2.0
"""This node's overlay, as the rest of the agent knows it.

`owned` makes it, `adopted` reads it. Both return an `OverlayState`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol

from vxlane.datapath.abi import Way
from vxlane.host.events import Events
from vxlane.overlay.desired import Path
from vxlane.overlay.plan import Plan
from vxlane.sources.model import Announcement, Node, Problem
from vxlane.sources.snapshot import Snapshot
from vxlane.util.dirty import Dirty


@dataclass(frozen=True, slots=True)
class OverlayState:
    """This node's end of the overlay and the way to every peer."""

    device: int
    """Ifindex of flannel.<VNI>; 0: there is none (host-gw)."""
    device_mtu: int
    address: IPv4Address
    """Our underlay address."""
    vtep_mac: str
    vni: int
    port: int
    underlay: int
    """Ifindex of the NIC; 0: the routes choose it."""
    paths: tuple[Path, ...]
    exits: frozenset[tuple[Way, int]]
    """The ways and NICs (ifindex) of the paths."""
    problems: tuple[Problem, ...] = ()
    plan: Plan | None = None
    """What the kernel path is to be. None: another program makes it."""

    @property
    def nics(self) -> frozenset[int]:
        """Ifindexes of the interfaces that carry packets to and from peers."""
        return frozenset({nic for _, nic in self.exits} | {self.underlay} - {0})

    @property
    def direct_nics(self) -> frozenset[int]:
        """Ifindexes of the interfaces by which directly routed packets leave."""
        return frozenset(nic for way, nic in self.exits if way is Way.DIRECT)


Attempt = Callable[[str], AbstractContextManager[None, bool]]
"""Given a part's name, makes a block whose failure is only noted; see `Failures.attempt`."""


class OverlayBackend(Protocol):
    """Makes (mode own) or follows (mode adopt) this node's overlay."""

    def announcement(self, own: Node | None) -> Announcement | None:
        """This node's announcement to the others; None: flanneld announces it."""

    def on_event(self, events: Events) -> Dirty:
        """Returns what is to be reconciled because of changed entries."""

    def reconcile(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState:
        """Make (or read) the device and find the path to each node of `snapshot`.

        Only what is `dirty` is compared. KernelError, ConfigError: that is impossible now.
        """

    def resync(self) -> Iterator[Dirty]:
        """Compare with the kernel in steps of some milliseconds. Yields what to reconcile."""

    def apply(self, overlay: OverlayState, attempt: Attempt) -> None:
        """Make the kernel path as `overlay.plan` says. A part that fails stops no other part."""
