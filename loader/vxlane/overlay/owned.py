# SPDX-License-Identifier: Apache-2.0
"""Mode `own`: this agent is the flannel backend, and makes and repairs the whole kernel path.

Owns the order: device, entries, rules, and subnet.env last, because pods are made once it is there.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Network

from vxlane.config import Config
from vxlane.errors import ConfigError
from vxlane.host import blackhole, subnet_env, sysctls, vtep
from vxlane.host.devices import Device, Devices
from vxlane.host.events import Events
from vxlane.host.nexthops import Query, resolve
from vxlane.host.underlay import Underlay
from vxlane.host.undo import UndoFile
from vxlane.overlay import bridge
from vxlane.overlay.backend import Attempt, OverlayState
from vxlane.overlay.chosen import ChosenUnderlay
from vxlane.overlay.desired import OwnRouting, exits_of
from vxlane.overlay.keepers import EntryKeeper, RuleKeeper, apply_sysctls
from vxlane.overlay.paths import Paths
from vxlane.overlay.plan import plan_for
from vxlane.sources.model import Announcement, Backend, Node, Problem, derived_mac
from vxlane.sources.snapshot import NodeSource, Snapshot
from vxlane.util.dirty import Dirty

log = logging.getLogger(__name__)


class OwnedOverlay:
    """Keeps the kernel path of this node; see `OverlayBackend`."""

    def __init__(
        self,
        config: Config,
        devices: Devices,
        *,
        undo: UndoFile,
        source: NodeSource,
    ) -> None:
        self._config = config
        self._source = source
        self._network = config.network
        self._devices = devices
        self._undo = undo
        self._paths = Paths(partial(resolve, devices.socket))
        self._entries = EntryKeeper(devices.socket)
        self._rules = RuleKeeper(uses_nftables=config.network.uses_nftables)
        self._chosen = ChosenUnderlay(devices, config.choice)
        self._underlay: Underlay | None = None
        self._own: Node | None = None
        """This node's entry at the last reconcile."""
        self._device: Device | None = None
        self._bridge_problem = ""

    def announcement(self, own: Node | None) -> Announcement:
        """See `OverlayBackend`. An existing device keeps its MAC."""
        underlay = self._choose(own)
        device = self._devices.by_name(vtep.name_of(self._network.vni))
        unknown = device.mac if device else derived_mac(self._config.node_name)
        return Announcement(
            address=underlay.announced,
            backend=self._network.backend,
            vni=self._network.vni,
            vtep_mac=own.vtep_mac if own else unknown,
        )

    def on_event(self, events: Events) -> Dirty:
        """See `OverlayBackend`."""
        return Dirty.ENTRIES if self._entries.contradicts(events) else Dirty(0)

    def reconcile(self, snapshot: Snapshot, dirty: Dirty) -> OverlayState:
        """See `OverlayBackend`."""
        own, network = snapshot.own, snapshot.network or self._network.cidr
        assert own is not None
        if network is None:
            raise ConfigError("the network of all pods is not known; name it beside the nodes")
        # The device has this node's MAC, and the rules have its pod CIDR.
        if own != self._own:
            dirty |= Dirty.HOST | Dirty.RULES
        if dirty & Dirty.ROUTES:
            self._paths.forget()
        if dirty & Dirty.HOST and self._reconcile_host(own, network):
            dirty |= Dirty.ENTRIES
        self._own = own
        assert self._underlay is not None
        overlay = self._overlay(snapshot, self._underlay)
        if dirty & Dirty.ENTRIES:
            self._entries.read(overlay.device)
        plan = plan_for(
            self._config,
            own,
            network,
            paths=overlay.paths,
            mtu=overlay.device_mtu,
            dirty=dirty,
        )
        return dataclasses.replace(overlay, plan=plan)

    def resync(self) -> Iterator[Dirty]:
        """See `OverlayBackend`."""
        yield from self._paths.resync()
        yield from self._entries.resync(self._device.index if self._device else 0)

    def apply(self, overlay: OverlayState, attempt: Attempt) -> None:
        """See `OverlayBackend`."""
        plan = overlay.plan
        assert plan is not None
        with attempt("entries"):
            self._entries.apply(plan.paths, plan.network)
        if plan.policy:
            with attempt("rules"):
                self._rules.apply(plan.policy)
        if plan.blackhole:
            with attempt("blackhole"):
                self._undo.note(blackhole=str(plan.blackhole))
                if blackhole.add(self._devices, plan.blackhole):
                    log.info("add blackhole route %s: missing", plan.blackhole)
        with attempt("subnet.env"):
            if subnet_env.write(self._config.subnet_file, plan.subnet_env):
                log.info("write %s: it was missing or differed", self._config.subnet_file)

    def _choose(self, own: Node | None) -> Underlay:
        known = own.address if own else None
        return self._chosen.now(known=known, asked=self._source.chosen_address())

    def _reconcile_host(self, own: Node, network: IPv4Network) -> bool:
        """Choose the underlay, and repair device and sysctls. True: the device was changed."""
        self._underlay = self._choose(own)
        name = vtep.name_of(self._network.vni)
        self._note_owner(name, network)
        apply_sysctls(sysctls.FORWARDING, self._undo)
        self._bridge_problem = bridge.remove_stale_addresses(self._devices, own.pod_cidr, network)
        if self._network.backend is not Backend.VXLAN:
            return False
        before = self._device
        self._device, done = vtep.ensure(self._devices, self._vtep(own, network, self._underlay))
        for line in done:
            log.info("%s", line)
        return bool(done) or before is None

    def _note_owner(self, device: str, network: IPv4Network) -> None:
        """Note whether vxlane made the kernel path. Decided before the first change to the node.

        A path that is there already is flanneld's. It stays flanneld's, even if we must repair it.
        """
        file = self._config.subnet_file
        is_there = file.exists() or self._devices.by_name(device) is not None
        if self._undo.known.network or (self._undo.is_first and not is_there):
            self._undo.note(device=device, network=str(network), subnet_file=str(file))
        elif self._undo.is_first:
            self._undo.note()

    def _vtep(self, own: Node, network: IPv4Network, underlay: Underlay) -> vtep.Vtep:
        return vtep.Vtep(
            name=vtep.name_of(self._network.vni),
            wiring=vtep.Wiring(
                vni=self._network.vni,
                port=self._network.port,
                local=underlay.address,
                underlay=underlay.device.index,
                learns=self._network.learns,
                is_gbp=self._network.is_gbp,
            ),
            mac=own.vtep_mac,
            mtu=self._pod_mtu(underlay),
            address=own.pod_cidr.network_address,
            network=network,
        )

    def _pod_mtu(self, underlay: Underlay) -> int:
        overhead = vtep.OVERHEAD if self._network.backend is Backend.VXLAN else 0
        # The kernel lets no tunnel be wider than its NIC; flanneld's is made as narrow.
        return min(self._network.mtu or underlay.device.mtu, underlay.device.mtu) - overhead

    def _overlay(self, snapshot: Snapshot, underlay: Underlay) -> OverlayState:
        own, device = snapshot.own, self._device
        assert own is not None
        routing = OwnRouting(
            self._network.backend, device.index if device else 0, self._network.routes_directly
        )
        query = Query(underlay.address, self._network.port)
        paths = self._paths.to(snapshot.peers, query, routing)
        reasons = filter(None, (self._chosen.problem, self._bridge_problem))
        problems = [Problem(own.name, reason) for reason in reasons]
        nic = underlay.device
        if self._network.mtu > nic.mtu:
            reason = f"{nic.name} has MTU {nic.mtu}, and the network's is {self._network.mtu}"
            problems.append(Problem(own.name, f"{reason}; raise it, or new pods get what fits it"))
        if own.address != underlay.announced:
            reason = f"peers send to {own.address}, its packets come from {underlay.announced}"
            problems.append(Problem(own.name, reason))
        return OverlayState(
            device=routing.device,
            device_mtu=device.mtu if device else self._pod_mtu(underlay),
            address=underlay.address,
            vtep_mac=own.vtep_mac,
            vni=self._network.vni,
            port=self._network.port,
            underlay=underlay.device.index,
            paths=paths,
            exits=exits_of(paths),
            problems=tuple(problems),
        )
