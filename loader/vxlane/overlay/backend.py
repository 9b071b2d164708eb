# SPDX-License-Identifier: Apache-2.0
"""What the rest of the agent needs to know of this node's overlay, whoever made it.

`owned` makes it, `adopted` reads it; both answer with an `OverlayState`.
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
    """Ifindex of the NIC; 0: the routes decide."""
    paths: tuple[Path, ...]
    exits: frozenset[tuple[Way, int]]
    """By which ways and NICs (ifindex) the paths lead."""
    problems: tuple[Problem, ...] = ()
    plan: Plan | None = None
    """Of the kernel path; None: others make it."""

    @property
    def nics(self) -> frozenset[int]:
        """Ifindexes of the interfaces that packets of peers come and go by."""
        return frozenset({nic for _, nic in self.exits} | {self.underlay} - {0})

    @property
    def direct_nics(self) -> frozenset[int]:
        """Those of them that directly routed packets leave by."""
        return frozenset(nic for way, nic in self.exits if way is Way.DIRECT)


Attempt = Callable[[str], AbstractContextManager[None, bool]]
"""Begins a block that may fail, by the name of what is attempted."""


class OverlayBackend(Protocol):
    """Keeps, or follows, this node's overlay."""

    def announcement(self, own: Node | None) -> Announcement | None:
        """What this node has to tell the others; None: someone else tells them."""

    def on_event(self, events: Events) -> Dirty:
        """What is to be looked at because entries are other than the last look left them."""

    def reconcile(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState:
        """Make (or read) the device and find the way to each node of `snapshot`; `dirty`: what
        may have changed since the last look. KernelError, ConfigError: it can't be made now.
        """

    def resync(self) -> Iterator[Dirty]:
        """Compare the overlay with the kernel's, a few milliseconds' worth at a time; each time
        what has to be looked at.
        """

    def apply(self, overlay: OverlayState, attempt: Attempt) -> None:
        """Make the kernel path as `overlay.plan` says; each part may fail without the others."""
