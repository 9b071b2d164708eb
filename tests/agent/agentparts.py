# SPDX-License-Identifier: Apache-2.0
"""An `Agent` among parts that only write down what they are told: source, overlay, bypass."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path as File
from typing import Any

import pytest

from vxlane.agent import agent as agents
from vxlane.agent import bypass_loader, kernel_path
from vxlane.agent.agent import Agent
from vxlane.config import Config
from vxlane.datapath.abi import Way
from vxlane.errors import VxlaneError
from vxlane.host.events import Events
from vxlane.overlay.backend import OverlayState
from vxlane.sources.model import Announcement, Backend, Node, Problem
from vxlane.sources.snapshot import NOTHING_READ, Snapshot
from vxlane.util.dirty import Dirty
from vxlane.util.tally import Withdrawal

LOCAL = IPv4Address("192.168.77.1")
OWN = Node("node1", LOCAL, IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
READ = Snapshot(OWN, (), read_at=1.0)
OVERLAY = OverlayState(
    device=9,
    device_mtu=1450,
    address=LOCAL,
    vtep_mac=OWN.vtep_mac,
    vni=1,
    port=8472,
    underlay=3,
    paths=(),
    exits=frozenset({(Way.TUNNEL, 3)}),
)


class Part:
    """Answers every call with None, and writes down its name and what it was told.

    `failing`: an error by the name of the call. `answers`: another answer than None.
    """

    def __init__(self, name: str, log: list[str]) -> None:
        self._name, self._log = name, log
        self.failing: dict[str, VxlaneError] = {}
        self.answers: dict[str, Any] = {}

    def __getattr__(self, call: str) -> Any:
        """The call."""

        def answer(*_: object, **__: object) -> Any:
            self._log.append(f"{self._name}.{call}")
            if call in self.failing:
                raise self.failing[call]
            return self.answers.get(call)

        return answer


class Parts:
    """What the agent is made of; `done` is all that was called, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: File) -> None:
        self.done: list[str] = []
        self.snapshot = READ
        self.source = Part("source", self.done)
        self.backend = Part("backend", self.done)
        self.pods = Part("pods", self.done)
        self.judged = Part("judged", self.done)
        self.bypass = Part("bypass", self.done)
        self.lease = Part("lease", self.done)
        self.cache = Part("cache", self.done)
        self.dirty: list[Dirty] = []
        """What each reconcile of the bypass was told."""
        self.withdrawals: list[Withdrawal] = []
        """Why approvals were withdrawn, each time."""
        self.state = state
        self.loads = 0
        self.load_failure: VxlaneError | None = None
        self._prepare()
        self._patch(monkeypatch)

    def agent(self, **config: Any) -> Agent:
        """A new agent of these parts."""
        made: Any = Config("node1", self.state, **config)
        source: Any = self.source
        cache: Any = self.cache
        return Agent(made, source, cache=cache, served=NOTHING_READ)

    def calls(self, *names: str) -> list[str]:
        """Those of `done` that are of these parts, without the others."""
        return [call for call in self.done if call.partition(".")[0] in names]

    def _prepare(self) -> None:
        self.source.nodes = lambda: self.snapshot
        own = Announcement(LOCAL, Backend.VXLAN, 1, OWN.vtep_mac)
        self.backend.answers = {
            "announcement": own,
            "reconcile": OVERLAY,
            "on_event": Dirty(0),
            "resync": iter(()),
        }
        self.pods.answers = {"devices_changed": False, "ports": ()}
        self.judged.judged = None
        self.bypass.lease = self.lease
        self.bypass.is_whole = True
        self.bypass.constants = "constants"
        self.bypass.reconcile = self._reconcile_bypass
        self.lease.flush = self._flush
        self.lease.is_held, self.lease.is_enabled = True, True

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("Devices", "PodStore", "UndoFile", "NotrackKeeper"):
            monkeypatch.setattr(agents, name, lambda *_, name=name: Part(name, self.done))
        monkeypatch.setattr(agents, "watcher_for", lambda _: Part("Watcher", self.done))
        monkeypatch.setattr(agents, "Pods", lambda *_: self.pods)
        monkeypatch.setattr(agents, "JudgedKeeper", lambda *_: self.judged)
        for name in ("OwnedOverlay", "AdoptedOverlay"):
            monkeypatch.setattr(kernel_path, name, lambda *_, **__: self.backend)
        monkeypatch.setattr(bypass_loader, "Bypass", self._load)
        monkeypatch.setattr(bypass_loader, "constants_for", lambda *_: "constants")

    def _load(self, *_: object, **__: object) -> Part:
        self.loads += 1
        if self.load_failure:
            raise self.load_failure
        return self.bypass

    def _flush(self, reason: Withdrawal) -> None:
        self.done.append("lease.flush")
        self.withdrawals.append(reason)

    def _reconcile_bypass(self, _: object, dirty: Dirty) -> list[Problem]:
        self.done.append("bypass.reconcile")
        self.dirty.append(dirty)
        if failure := self.bypass.failing.get("reconcile"):
            raise failure
        return []


def steps(*dirty: Dirty, then: VxlaneError | None = None) -> Iterator[Dirty]:
    """Steps of a resync, of which the last may fail."""
    yield from dirty
    if then:
        raise then


def events(**changes: Any) -> Events:
    """Events of one reading."""
    return Events(**changes)
