# SPDX-License-Identifier: Apache-2.0
"""One agent: compares what should be with what is, and repairs the difference.

`loop` decides when. If the source is down, the overlay can't be made or the programs do not
compile, that is reported and tried again later. A failure stops only its own part: the kernel path
does not wait for the bypass.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from vxlane.agent.bypass_loader import BypassLoader
from vxlane.agent.failures import Failures
from vxlane.agent.kernel_path import KernelPath
from vxlane.agent.problems import Problems
from vxlane.agent.runtime_files import RuntimeFiles
from vxlane.agent.sole import is_awaited
from vxlane.bypass.bypass import Bypass
from vxlane.bypass.judged import JudgedKeeper, watcher_for
from vxlane.config import Config, Mode
from vxlane.host.devices import Devices
from vxlane.host.events import Events, RulesetChange
from vxlane.host.undo import UndoFile
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.hold_down import HoldDown
from vxlane.overlay.node_cache import NodeCache
from vxlane.overlay.notrack import NotrackKeeper
from vxlane.pods.interfaces import PodStore
from vxlane.pods.pods import Pods
from vxlane.sources.model import Problem
from vxlane.sources.snapshot import NodeSource, Snapshot
from vxlane.sources.steering import EVERYTHING, Wish
from vxlane.util.dirty import ALL, Dirty
from vxlane.util.tally import Tally, Withdrawal

log = logging.getLogger(__name__)

_OF_THE_BYPASS = frozenset(
    {
        *("bypass", "CNI plugin", "conntrack", "node cache", "notrack", "pods", "resync of maps"),
        *("resync of overlay", "tracer", "undo"),
    }
)
"""Parts that may fail while the node still has its network."""


class Agent:
    """This node's agent, in the network namespace of the process."""

    def __init__(
        self, config: Config, source: NodeSource, *, cache: NodeCache, served: Snapshot
    ) -> None:
        self.config = config
        self.is_ready = False
        self.is_current = False
        """Whether the maps are what the last reconcile found."""
        self.reconciles = 0
        """How many reconciles there were."""
        self.wish = EVERYTHING
        """How much of this node is to be bypassed."""
        self._is_enabled = True
        """See `switch`."""
        self.tally = Tally()
        self.problems = Problems()
        self.snapshot = source.nodes()
        self._source = source
        self._devices = Devices()
        self.pods = Pods(self._devices, PodStore(config.state / "pods"))
        self._undo = UndoFile(config.state)
        self._node_cache = cache
        self._hold_down = HoldDown(served)
        self._failures = Failures()
        self._attempt = self._failures.attempt
        self._kernel_path = KernelPath(
            config, self._devices, undo=self._undo, source=source, attempt=self._attempt
        )
        self.runtime_files = RuntimeFiles(config, self.pods, self._attempt)
        self._watcher = watcher_for(config)
        self.judged = JudgedKeeper(self._watcher, config, self.tally.rule_changes)
        self._loader = BypassLoader(
            config, self._devices, undo=self._undo, pods=self.pods, tally=self.tally
        )
        self.notrack = NotrackKeeper(config, self._undo)

    @property
    def bypass(self) -> Bypass | None:
        """The bypass that is loaded now."""
        return self._loader.bypass

    @property
    def loaded_at(self) -> float:
        """When it was loaded (CLOCK_MONOTONIC). Everything was read anew after that."""
        return self._loader.loaded_at

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed at the last attempt and is to be tried again, in whole sentences."""
        return tuple(self._failures.reasons.values())

    @property
    def is_serving(self) -> bool:
        """Whether the node has its network, and its bypass if that is wanted and possible."""
        bypass = self.bypass
        if not self.is_ready or bypass is None or "bypass" in self._failures.reasons:
            return self.is_ready
        return bypass.lease.is_held or not bypass.lease.is_enabled

    @property
    def device(self) -> int:
        """Ifindex of the overlay's device; 0: none yet, or none at all."""
        return self._kernel_path.device

    @property
    def overlay(self) -> OverlayState | None:
        """The kernel path as the last reconcile found it; None: there is none yet."""
        return self._kernel_path.overlay

    def close(self) -> None:
        """Close what is open. Device, entries, rules and programs stay."""
        self._save_nodes()
        self._watcher.close()
        self.runtime_files.close()
        with self._attempt("notrack"):
            self.notrack.close()
        self._loader.close(is_awaited=is_awaited(self.config.state))
        self._devices.close()

    def steer(self, wish: Wish) -> None:
        """From now on bypass as much of this node as `wish` says."""
        self.wish = wish
        self.switch(is_enabled=wish.is_on)
        self.reconsider_pods()

    def switch(self, *, is_enabled: bool) -> None:
        """Switch the bypass on or off, also one that is loaded later."""
        self._is_enabled = is_enabled
        if self.bypass and self.overlay:
            self.bypass.lease.switch(self.overlay, is_enabled=is_enabled)

    def reconsider_pods(self) -> None:
        """Check the pods whose opt-out has changed."""
        with self._attempt("pods"):
            self.pods.reconsider()

    def reconcile(self, dirty: Dirty) -> None:
        """Compare the parts in `dirty` with what they should be, and repair them."""
        self.reconciles += 1
        if self.overlay is None:
            # No reconcile has had nodes so far, so none has compared anything.
            dirty = ALL
        self.snapshot = self._hold_down.take(self._source.nodes(), time.monotonic())
        overlay, left_out = self._kernel_path.reconcile(self.snapshot, dirty), list[Problem]()
        bypass = self._loader.fitting(overlay)
        if overlay and not bypass:
            with self._attempt("bypass"):
                self._loader.load(overlay, is_enabled=self._is_enabled)
                # It may have taken seconds, and what was read before may have changed.
                dirty = ALL
                overlay = self._kernel_path.reconcile(self.snapshot, dirty)
                bypass = self._loader.fitting(overlay)
        self.is_current = False
        if overlay and bypass:
            with self._attempt("bypass"):
                left_out = self._reconcile_bypass(bypass, overlay, dirty)
                self.is_current = True
        if overlay and not self._failures.reasons.keys() - _OF_THE_BYPASS:
            self._become_ready()
        self._reconcile_notrack()
        self._report(overlay, left_out)
        if dirty == ALL:
            self._save_nodes()

    def on_event(self, events: Events) -> Dirty:
        """Act at once on removed devices and changed pods. Returns what is to be reconciled."""
        if events.lost:
            self.pods.lost_track()
            self.judged.read_devices()
            self.withdraw_approvals(Withdrawal.EVENTS_LOST)
            return ALL
        dirty = Dirty(0)
        with self._attempt("pods"):
            self.pods.devices_removed(events.removed)
        if self.pods.devices_changed(events.touched):
            # At once: until the maps know of a new shaper or filter, packets bypass it.
            with self._attempt("pods"):
                self.pods.check_changed()
            dirty |= Dirty.PODS
        changed = events.touched | events.removed
        if self.judged.has_device(events.touched):
            self.judged.read_devices()
        if events.routing or not self.overlay:
            dirty |= Dirty.HOST | Dirty.ROUTES
            # A flow's record holds the way out that its packets took before.
            self.withdraw_approvals(Withdrawal.ROUTES)
        if changed & self._kernel_path.devices:
            self.withdraw_approvals(Withdrawal.DEVICES)
            # A device that goes down loses its entries and routes, and not each has an event.
            dirty |= Dirty.HOST | Dirty.ROUTES | Dirty.ENTRIES
        return dirty | self._kernel_path.on_event(events)

    def resync(self) -> Iterator[Dirty]:
        """Compare everything that may change without an event.

        Yields what is to be reconciled after each step. A step takes some milliseconds, so that a
        change of a node does not wait until everything is compared.
        """
        yield Dirty.NODES | Dirty.HOST
        self.runtime_files.resync()
        if self.overlay:
            yield from self._failures.up_to_one("resync of overlay", self._kernel_path.resync())
        if self.bypass:
            yield from self._failures.up_to_one("resync of maps", self.bypass.resync())
            self.judged.read_devices()

    @property
    def readings(self) -> int:
        """A descriptor: `on_read` is to be called when it is readable."""
        return self._watcher.fileno()

    def on_rules(self, change: RulesetChange) -> None:
        """Rules changed. If packets of pods may meet them, withdraw all approvals, and leave all
        packets to the kernel path until the new rules are read.
        """
        if self.judged.on_rules(change):
            # First: the new rules may drop tunnel packets that are not tracked.
            self._reconcile_notrack()
            self.withdraw_approvals(Withdrawal.RULES)

    def on_read(self) -> None:
        """Rules and devices were read."""
        if self.judged.on_read():
            self.withdraw_approvals(Withdrawal.RULES)
        self._judge()
        self._reconcile_notrack()

    def withdraw_approvals(self, reason: Withdrawal) -> None:
        """The kernel path may have changed: send each flow through it once more."""
        if self.bypass and self.overlay:
            self._judge()
            self.bypass.lease.flush(reason)

    def renew_notrack(self) -> None:
        """Renew the notrack rules, which end by themselves. Called every `RENEW_EVERY` seconds."""
        with self._attempt("notrack"):
            self.notrack.renew()

    def _reconcile_notrack(self) -> None:
        with self._attempt("notrack"):
            self.notrack.reconcile(self.overlay, self.judged.hindrances)

    def _judge(self) -> None:
        if bypass := self.bypass:
            with self._attempt("pods"):
                bypass.judge(self.judged.judged)

    def renew(self, true_at: float) -> None:
        """Renew the lease: the maps were true at `true_at` (CLOCK_MONOTONIC, seconds).

        Called from the heartbeat's thread.
        """
        if bypass := self.bypass:
            bypass.lease.renew(true_at)

    def apply_settings(self) -> None:
        """Write the programs' settings again: some follow sysctls, which have no events."""
        if self.bypass and self.overlay:
            self.bypass.lease.apply(self.overlay)

    def sync(self) -> Dirty:
        """Do the work that may wait for a second: save changes, tell conntrack of resets.

        Returns ALL if the pinned objects are not ours any more.
        """
        self._save_nodes()
        with self._attempt("undo"):
            self._undo.save()
        self._reconcile_notrack()
        bypass = self.bypass
        if bypass is None:
            return Dirty(0)
        with self._attempt("conntrack"):
            bypass.sync_connections()
        with self._attempt("tracer"):
            bypass.remove_abandoned_tracer()
        return Dirty(0) if bypass.is_whole else ALL

    def _save_nodes(self) -> None:
        with self._attempt("node cache"):
            self._node_cache.save(self.snapshot)

    def _reconcile_bypass(
        self, bypass: Bypass, overlay: OverlayState, dirty: Dirty
    ) -> list[Problem]:
        problems = bypass.reconcile(overlay, dirty)
        own = self.snapshot.own
        self.judged.reconcile(
            overlay, self.pods.ports(), self.snapshot.network, own.pod_cidr if own else None
        )
        self._judge()
        # Last: the lease is renewed only after the rules are read. Until then an earlier agent's
        # lease may hold.
        bypass.serve(overlay)
        return problems

    def _become_ready(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            log.info("ready")
            if self.config.mode is Mode.OWN and self.config.clears_unavailable:
                self._source.ready()

    def _report(self, overlay: OverlayState | None, left_out: list[Problem]) -> None:
        problems = [*self.snapshot.problems, *left_out]
        if overlay:
            problems += overlay.problems
            problems += [path.problem for path in overlay.paths if path.problem]
        self.problems.replace(problems)
