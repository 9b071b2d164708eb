# SPDX-License-Identifier: Apache-2.0
"""Which pods are left to the kernel path, because a rule or device acts on each of their packets.

A thread reads rules and devices (`vxlane.mechanisms`). While there are changed rules that are not
read yet and that packets of pods may meet, all pods are left to the kernel path: no packet may skip
an unknown rule.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from math import inf
from typing import Any

from vxlane.config import Config
from vxlane.datapath.attach import Hooks
from vxlane.datapath.programs import pin_directory
from vxlane.host import subnet_env
from vxlane.host.events import RulesetChange
from vxlane.mechanisms.concern import Judged, Pods, judged
from vxlane.mechanisms.devices import DeviceReader, Devices, PodDevice
from vxlane.mechanisms.ipvs import SERVICES, IpvsReader
from vxlane.mechanisms.kinds import MEANING, Finding, Scope
from vxlane.mechanisms.packet import View
from vxlane.mechanisms.watcher import Question, Reading, Watcher
from vxlane.netlink.socket import NetlinkSocket
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.desired import Path
from vxlane.pods.pod_state import PodPort
from vxlane.util.log_lines import log_lines
from vxlane.util.names import device_name

log = logging.getLogger(__name__)

_EVERYWHERE = IPv4Network("0.0.0.0/0")
_NOWHERE = IPv4Network("255.255.255.255/32")


class JudgedKeeper:
    """Asks for readings of the node's rules and devices, and says which pods they concern."""

    def __init__(self, watcher: Watcher, config: Config, changes: Counter[bool]) -> None:
        """`changes` counts changes of rules: True those that packets of pods may meet."""
        self._watcher = watcher
        self._changes = changes
        self._ignored = config.ignored
        self._subnet_file = config.subnet_file
        self._untracks = config.untracks
        self._question: Question | None = None
        self._pods: Pods = {}
        self._local = _NOWHERE
        self.is_unread = True
        """Whether there are changed rules that packets of pods may meet and that are not read."""
        self._paths: Sequence[Path] = ()
        self._peers: tuple[IPv4Address, ...] = ()
        self.found: tuple[Finding, ...] = ()
        """What was read last."""
        self._reading = Reading()
        self._changed = -inf
        """When rules that packets of pods may meet changed last (CLOCK_MONOTONIC, seconds)."""

    @property
    def judged(self) -> Judged:
        """The pods and flows that are left to the kernel path now."""
        if self.is_unread:
            return Judged(all=True)
        found = judged(self.found, self._pods, self._local, self._ignored)
        # The rules may say otherwise of a bridge or a peer that was not asked for.
        is_answered = self._reading.question == self._question
        return replace(found, may_drop=self._reading.may_drop or not is_answered)

    @property
    def hindrances(self) -> tuple[str, ...] | None:
        """Why the tunnel's packets must be tracked by conntrack; empty: they need not be.

        None: that is not known at the moment.
        """
        question, is_calm = self._question, time.monotonic() > self._changed + _CALM
        if not is_calm or self.is_unread or not question or self._reading.question != question:
            return None
        view = question.view
        if view.address in view.network:
            # Rules for our address would be rules for a pod's.
            return (f"{view.address} may be a pod's address",)
        return self._reading.hindrances

    def reconcile(
        self,
        overlay: OverlayState,
        ports: Sequence[PodPort],
        network: IPv4Network | None,
        local: IPv4Network | None,
    ) -> None:
        """Take over the pods and the overlay as they are. Ask for a reading if they changed."""
        self._pods = {port.name: port.addresses for port in ports}
        if not network or not local:
            # In mode adopt the source may not know them; flanneld's file does.
            known = subnet_env.read(self._subnet_file)
            network = network or _parsed(known.get("FLANNEL_NETWORK", ""))
            local = local or _parsed(known.get("FLANNEL_SUBNET", ""))
        self._local = local or _NOWHERE
        question = self._of(overlay, ports, network)
        if question != self._question:
            is_first, self._question = self._question is None, question
            self._watcher.request(question)
            if is_first:
                self._watcher.wait(_FIRST)
                self.on_read()

    def has_device(self, ifindexes: Collection[int]) -> bool:
        """Whether one of these devices is on the way of pods' packets."""
        devices = self._question.devices if self._question else None
        return bool(devices and any(ifindex in ifindexes for ifindex, _ in devices.inner))

    def read_devices(self) -> None:
        """Ask for a reading: qdiscs, filters or programs may have changed."""
        self._watcher.request()

    def on_rules(self, change: RulesetChange) -> bool:
        """Rules changed. True: packets of pods may meet them, and a reading is requested."""
        concerns = self._watcher.concerns(change)
        self._changes[concerns] += 1
        if not concerns:
            return False
        self.is_unread = True
        self._changed = time.monotonic()
        self._watcher.request(change=change)
        return True

    def on_read(self) -> bool:
        """Take the new reading. True: rules without events have changed."""
        reading = self._watcher.take()
        if reading is None:
            return False
        self.is_unread = self.is_unread and self._watcher.is_pending
        log.debug("read rules and devices in %.3f s", reading.seconds)
        self._report(reading.found)
        self.found = reading.found
        self._changes[True] += reading.has_silent_change
        self._reading = reading
        return reading.has_silent_change

    def document(self) -> list[dict[str, Any]]:
        """The findings as `vxlane status` shows them."""
        return [
            {
                "kind": finding.kind.value,
                "meaning": MEANING[finding.kind],
                "where": finding.where,
                "flows": "translated" if finding.is_translated else "all",
                "pods": _shown(finding.scope),
                "ignored": finding.kind in self._ignored,
            }
            for finding in self.found
        ]

    def _of(
        self, overlay: OverlayState, ports: Sequence[PodPort], network: IPv4Network | None
    ) -> Question:
        if overlay.paths is not self._paths:
            self._paths = overlay.paths
            self._peers = tuple(path.node.address for path in overlay.paths)
        bridges = {port.bridge: device_name(port.bridge) for port in ports}
        device = device_name(overlay.device) if overlay.device else ""
        view = View(
            network=network or _EVERYWHERE,
            local=self._local,
            bridges=frozenset(bridges.values()),
            overlay=device,
            nics=frozenset(map(device_name, overlay.nics)),
            direct=frozenset(map(device_name, overlay.direct_nics)),
            address=overlay.address,
            peers=self._peers,
            port=overlay.port,
        )
        inner = sorted({**bridges, **({overlay.device: device} if device else {})}.items())
        pods = tuple(PodDevice(port.ifindex, port.name, port.netns) for port in ports)
        return Question(view, Devices(tuple(inner), pods), self._untracks)

    def _report(self, found: tuple[Finding, ...]) -> None:
        """Log the findings that are new, and those that are gone."""
        now, before = dict.fromkeys(found), dict.fromkeys(self.found)
        log_lines(log, [self._line(each) for each in now if each not in before], "mechanisms")
        gone = [f"no longer there: {_named(each)}" for each in before if each not in now]
        log_lines(log, gone, "mechanisms that are no longer there")

    def _line(self, finding: Finding) -> str:
        how = "ignored" if finding.kind in self._ignored else "left to the kernel path"
        return f"{how}: {_named(finding)}"


_CALM = 2.0
"""Seconds without a change of rules before the tunnel's packets may be untracked. Rules that open a
firewall and those that close it are added one after the other.
"""
_FIRST = 1.0
"""Seconds that the agent waits for the first reading. It never waits for later ones."""


def watcher_for(config: Config) -> Watcher:
    """A thread that reads rules and devices, with sockets of its own."""
    netlink = NetlinkSocket()
    hooks = Hooks(pin_directory(config.state), config.method, netlink)
    return Watcher(DeviceReader(hooks, netlink), IpvsReader(SERVICES))


def _parsed(text: str) -> IPv4Network | None:
    """The network of an address with its prefix. None: it is a list of several networks."""
    try:
        return IPv4Interface(text).network
    except ValueError:
        return None


def _named(finding: Finding) -> str:
    flows = ", for translated flows" if finding.is_translated else ""
    return f"{finding.kind.value} in {finding.where}{flows}"


def _shown(scope: Scope) -> str:
    if scope.ports is not None:
        return " ".join(sorted(scope.ports))
    ranges = scope.sources or scope.destinations
    return "all" if ranges is None else "by address"
