# SPDX-License-Identifier: Apache-2.0
"""The bypass of this node: its programs, where they are attached, their maps and the lease.

Everything here may fail. Packets take the kernel path then.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from vxlane.bypass.idle import IdleConnections
from vxlane.bypass.lease import Lease, Terms
from vxlane.bypass.peers import PeerKeeper
from vxlane.config import Config
from vxlane.datapath import pins, tracer
from vxlane.datapath.abi import Guard, Program
from vxlane.datapath.attach import Hooks
from vxlane.datapath.hooks import HookKeeper, Place
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import (
    Constants,
    LoadReport,
    Strictness,
    ensure_loaded,
    pin_directory,
    retire_others,
)
from vxlane.datapath.syscall import TcxHook
from vxlane.host import sysctls
from vxlane.host.conntrack import close_connections, is_heard
from vxlane.host.copies import CopyRule
from vxlane.host.devices import Devices
from vxlane.host.undo import UndoFile
from vxlane.mechanisms.concern import Judged
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.keepers import apply_sysctls
from vxlane.pods.pods import Pods
from vxlane.pods.programs import PodPrograms
from vxlane.probes import known
from vxlane.sources.model import Problem
from vxlane.util.dirty import Dirty
from vxlane.util.tally import Tally, Withdrawal

log = logging.getLogger(__name__)


class Bypass:
    """The loaded programs of one build with one set of constants, their maps and hooks."""

    def __init__(
        self,
        config: Config,
        devices: Devices,
        *,
        undo: UndoFile,
        pods: Pods,
        overlay: OverlayState,
        tally: Tally,
    ) -> None:
        self.constants = constants_for(config, overlay)
        self.report: LoadReport = ensure_loaded(config.state, self.constants)
        self._state: Path = config.state
        self._devices = devices
        log.info(
            "programs %s %s",
            "loaded, compiled with" if self.report.loaded else "taken over as compiled with",
            self.report.headers,
        )
        self._pins = pin_directory(config.state)
        hooks = Hooks(self._pins, config.method, devices.socket)
        # Also if nothing was compiled: an agent may have been killed between the two steps.
        hooks.refresh()
        self._undo = undo
        self._pinned = pins.read(self._pins)
        self._pods = pods
        self._copies = CopyRule(undo)
        self._has_retired = False
        with contextlib.ExitStack() as opened:
            self.maps = opened.enter_context(Maps.open(self._pins))
            self.hooks = HookKeeper(hooks, tally.hooks)
            self._peers = PeerKeeper(self.maps)
            self.lease = Lease(self.maps, Terms(config.revalidate), tally.withdrawals)
            self._idle = IdleConnections(self.maps)
            pods.connect(PodPrograms(self.maps, self.hooks, partial(_foreign, hooks)))
            # Open from now on, for nothing has failed: see close().
            opened.pop_all()

    @property
    def is_whole(self) -> bool:
        """Whether the pins are still ours. Someone may unmount the bpffs or replace a pin."""
        return pins.read(self._pins) == self._pinned

    def close(self, *, is_awaited: bool = False) -> None:
        """Close the maps. End the lease unless another agent stands by (`is_awaited`) and takes it
        over. All pins stay.
        """
        if is_awaited:
            self.lease.leave()
        else:
            self.lease.end()
        self._pods.connect(None)
        self.maps.close()

    def reconcile(self, overlay: OverlayState, dirty: Dirty) -> list[Problem]:
        """Make maps and hooks as `overlay` says. Returns a Problem for each peer without room."""
        if dirty & Dirty.MAPS:
            apply_sysctls(sysctls.CONNTRACK, self._undo)
            self._copies.ensure()
            self._peers.read()
            self._pods.reconcile()
        if dirty & Dirty.HOST:
            self.hooks.move_behind_others()
        if dirty & Dirty.PODS:
            self._pods.check_changed()
        nics = overlay.nics
        problems = self._peers.apply(overlay, self._mtus(nics))
        if self._peers.take_changed():
            # Flow records hold what was in the old entries.
            self.lease.flush(Withdrawal.PEERS)
        self.hooks.apply(self._pods.places() | _places(nics))
        return problems

    def serve(self, overlay: OverlayState) -> None:
        """From now on renew the lease, so that the programs use the maps."""
        self.lease.apply(overlay)
        if not self._has_retired:
            self._has_retired = True
            if retire_others(self._state):
                # Until now their programs counted as foreign filters on every veth.
                self._pods.lost_track()
                self._pods.reconcile()

    def resync(self) -> Iterator[Dirty]:
        """Compare maps and hooks with what they should be, in steps of some milliseconds."""
        apply_sysctls(sysctls.CONNTRACK, self._undo)
        self._copies.ensure()
        yield from self.hooks.resync()
        yield from self._peers.resync()
        yield from self._pods.resync()

    def judge(self, judged: Judged) -> None:
        """Leave these pods' packets to the kernel path, and no others'."""
        self.lease.judge(judged)
        self._pods.judge(judged.ports)

    def sync_connections(self) -> None:
        """Tell conntrack which bypassed connections were reset, and which have become idle. Ask
        who listens to it: no event tells of that.
        """
        self.lease.hear(is_heard=is_heard())
        if ended := self.maps.take_resets():
            close_connections(ended)
        self._idle.sync(self.lease.revalidate)

    def remove_abandoned_tracer(self) -> None:
        """Remove a tracer whose process was killed."""
        if tracer.remove_abandoned(self._state, self.maps):
            log.warning("remove a tracer whose process has ended")

    def _mtus(self, nics: frozenset[int]) -> dict[int, int]:
        devices = (self._devices.by_index(ifindex) for ifindex in nics)
        return {device.index: device.mtu for device in devices if device}


def constants_for(config: Config, overlay: OverlayState) -> Constants:
    """The constants that this node's programs and maps are loaded with.

    If the map can't hold all peers, a VTEP that is not in it may be a peer. Then --strict is off.
    """
    constants = replace(
        config.constants,
        vni=overlay.vni,
        port=overlay.port,
        decap_l4_udp=known.does("decap_l4_udp"),
        peer_takes_as_host=known.does("peer_takes_as_host"),
    )
    fits = len(overlay.paths) <= constants.max_peers
    return constants if fits else replace(constants, strict=Strictness.PASS)


def _places(nics: frozenset[int]) -> set[Place]:
    """The programs of the NICs, and where they are to be attached."""
    return {(program, nic) for program in (Program.FROM_NIC, Program.TO_NIC) for nic in nics}


def _foreign(hooks: Hooks, ifindex: int) -> Guard:
    """The directions in which a veth has someone else's filters."""
    found = Guard(0)
    if hooks.has_foreign_filters(TcxHook.INGRESS, ifindex):
        found |= Guard.FROM_POD
    if hooks.has_foreign_filters(TcxHook.EGRESS, ifindex):
        found |= Guard.TO_POD
    return found
