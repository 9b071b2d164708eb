# SPDX-License-Identifier: Apache-2.0
"""What wakes the agent and what it does then: descriptors, a clock, and parts that write down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest
from agentparts import Part

from vxlane.agent import loop as loops
from vxlane.agent.loop import Loop
from vxlane.agent.pace import Pace
from vxlane.config import Config, Mode
from vxlane.util.dirty import ALL, Dirty
from vxlane.util.tally import Tally, Withdrawal


class Enough(BaseException):
    """Ends the loop, as a signal does."""


class Clock:
    """Stands in for `time`: goes on by `step` seconds with each look."""

    def __init__(self, step: float) -> None:
        self._now, self._step = 1_000_000.0, step

    def monotonic(self) -> float:
        """See `time`."""
        self._now += self._step
        return self._now

    process_time = monotonic


class Followed(Part):
    """A part with a descriptor that is readable once `tell` was called, and empty after `read`."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name, log)
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def tell(self) -> None:
        """Something happened."""
        os.eventfd_write(self.changed, 1)

    def fileno(self) -> int:
        """For a selector."""
        return self.changed

    def read(self, *_: object) -> Any:
        """What happened."""
        os.eventfd_read(self.changed)
        self._log.append(f"{self._name}.read")
        return self.answers.get("read")

    on_event = read
    """The same, as sources name it."""

    def close(self) -> None:
        """Follow no more."""
        self._log.append(f"{self._name}.close")
        os.close(self.changed)


class Desk:
    """A loop, and all that it calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: File, mode: Mode) -> None:
        self.done: list[str] = []
        self.reconciled: list[Dirty] = []
        self.most = 1
        """After so many reconciles the loop is ended."""
        self.agent: Any = Part("agent", self.done)
        self.agent.config = Config("node1", state, mode=mode, rules_interval=0.0)
        self.agent.device, self.agent.failures, self.agent.is_current = 9, (), True
        self.agent.loaded_at = 0.0
        self.agent.is_serving = False
        self.agent.reconcile = self._reconcile
        self.agent.tally = Tally()
        self.agent.answers = {"sync": Dirty(0), "on_event": Dirty(0), "resync": iter(())}
        self.source, self.routes, self.rulesets, self.readings, self.cache = (
            Followed(name, self.done)
            for name in ("source", "routes", "rulesets", "readings", "cache")
        )
        self.agent.readings = self.readings.changed
        self.agent.runtime_files = Part("runtime_files", self.done)
        followed = [(self.cache.changed, self.cache.read)]
        self.agent.runtime_files.answers["follow"] = followed
        self.heartbeat = Part("heartbeat", self.done)
        self.xfrm: Followed | None = Followed("xfrm", self.done)
        for name in ("Readiness", "Server"):
            monkeypatch.setattr(loops, name, lambda *_, name=name: Part(name, self.done))
        monkeypatch.setattr(loops, "Operations", lambda *_: Part("Operations", self.done))
        monkeypatch.setattr(loops, "Heartbeat", lambda *_: self.heartbeat)
        monkeypatch.setattr(loops, "RouteEvents", lambda: self.routes)
        monkeypatch.setattr(loops, "RulesetEvents", lambda: self.rulesets)
        monkeypatch.setattr(loops, "xfrm_events", lambda: self.xfrm)
        monkeypatch.setattr(loops, "is_about", lambda change: change == "ours")
        source: Any = self.source
        statuses: Any = Part("statuses", self.done)
        steering: Any = Part("steering", self.done)
        steering.changed = -1
        self.loop = Loop(self.agent, source, statuses, steering)

    def run(self, most: int = 1) -> list[Dirty]:
        """Run for so many reconciles; what each was asked for."""
        self.most = len(self.reconciled) + most
        with pytest.raises(Enough):
            self.loop.run()
        return self.reconciled[-most:]

    def settle(self) -> None:
        """The first reconcile is over, and nothing is requested."""
        assert self.run() == [ALL]
        self.loop._pace = Pace(0.0, 0.0)
        self.loop._pace.take()
        self.done.clear()

    def _reconcile(self, dirty: Dirty) -> None:
        self.reconciled.append(dirty)
        self.done.append("agent.reconcile")
        if len(self.reconciled) >= self.most:
            raise Enough


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> Iterator[Desk]:
    """A loop in mode adopt, which compares no rules by the clock."""
    made = Desk(monkeypatch, tmp_path, Mode.ADOPT)
    yield made
    made.loop.close()


def test_all_is_reconciled_at_first(desk: Desk) -> None:
    """Before any event."""
    assert desk.run() == [ALL]


def test_what_the_runtime_wrote_is_reconciled(desk: Desk) -> None:
    """As the follower of its files says."""
    desk.settle()
    desk.cache.answers["read"] = Dirty.PODS
    desk.cache.tell()
    assert desk.run() == [Dirty.PODS]
    assert desk.done[0] == "cache.read"


def test_a_change_of_nodes_is_reconciled(desk: Desk) -> None:
    """If the source says that they may be others."""
    desk.settle()
    desk.source.answers["read"] = True
    desk.source.tell()
    assert desk.run() == [Dirty.NODES]


def test_a_reconcile_is_measured_by_what_it_was_of(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it took by the clock, for the metrics."""
    monkeypatch.setattr(loops, "time", Clock(step=0.3))
    desk.most = 9
    desk.loop._pace.take()
    for dirty in (Dirty.NODES, Dirty.NODES | Dirty.HOST):
        desk.loop._pace.request(dirty, 0.0)
        desk.loop._reconcile(0.0)
    measured = desk.agent.tally.reconciles
    assert measured.keys() == {"nodes", "several"}
    assert [one.cumulative()[-1] for one in measured.values()] == [1, 1]
    assert measured["nodes"].sum >= 0.3


def test_a_source_that_has_no_news_is_no_reason(desk: Desk) -> None:
    """What else came decides."""
    desk.settle()
    desk.source.answers["read"] = False
    desk.agent.answers["on_event"] = Dirty.PODS
    desk.source.tell()
    desk.routes.tell()
    assert desk.run() == [Dirty.PODS]


def test_the_lease_falls_behind_before_an_event_is_read(desk: Desk) -> None:
    """From there on, what was told is not in the maps until it is reconciled."""
    desk.settle()
    desk.agent.answers["on_event"] = Dirty.ENTRIES
    desk.routes.tell()
    desk.run()
    assert desk.done[:3] == ["heartbeat.fall_behind", "routes.read", "agent.on_event"]
    assert "heartbeat.catch_up" not in desk.done


@pytest.mark.parametrize(("current", "catches_up"), [(True, True), (False, False)])
def test_the_lease_catches_up_with_maps_that_are_current(
    desk: Desk, *, current: bool, catches_up: bool
) -> None:
    """A reconcile that could not write the maps renews nothing."""
    desk.agent.is_current = current
    desk.most = 2
    desk.loop._reconcile(0.0)
    assert ("heartbeat.catch_up" in desk.done) is catches_up
    assert "statuses.post" in desk.done


@pytest.mark.parametrize(("woke", "loaded", "since"), [(7.0, 5.0, 7.0), (7.0, 9.0, 9.0)])
def test_the_lease_counts_from_what_was_read_last(
    desk: Desk, woke: float, loaded: float, since: float
) -> None:
    """To load the programs takes as long as a lease, and all is read anew after that."""
    since_when: list[float] = []
    desk.agent.loaded_at, desk.most = loaded, 2
    desk.heartbeat.catch_up = since_when.append
    desk.loop._reconcile(woke)
    assert since_when == [since]


def test_a_failed_reconcile_is_tried_again_as_a_whole(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a second, without an event."""
    monkeypatch.setattr(loops, "time", Clock(step=0.3))
    desk.agent.failures = ("no network",)
    assert desk.run(2) == [ALL, ALL]


@pytest.mark.parametrize(("change", "rules"), [("ours", True), ("others'", False)])
def test_a_change_of_rules_is_the_agents_and_perhaps_the_kernel_paths(
    desk: Desk, change: str, *, rules: bool
) -> None:
    """The agent hears of every change; only one of our rules is repaired."""
    desk.settle()
    desk.rulesets.answers["read"] = change
    desk.agent.answers["on_event"] = Dirty.PODS
    desk.rulesets.tell()
    desk.routes.tell()
    assert desk.run() == [Dirty.PODS | Dirty.RULES if rules else Dirty.PODS]
    assert "agent.on_rules" in desk.done


def test_policies_of_ipsec_withdraw_approvals(desk: Desk) -> None:
    """And readings of rules are the agent's to take."""
    desk.settle()
    assert desk.xfrm
    desk.xfrm.answers["read"] = True
    desk.agent.answers["on_event"] = Dirty.PODS
    withdrawals: list[Withdrawal] = []
    desk.agent.withdraw_approvals = withdrawals.append
    desk.xfrm.tell()
    desk.readings.tell()
    desk.routes.tell()
    desk.run()
    assert "agent.on_read" in desk.done
    assert withdrawals == [Withdrawal.IPSEC]


def test_rules_are_compared_by_the_clock_in_mode_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: File
) -> None:
    """iptables-legacy has no events; in adopt they are flanneld's."""
    desk = Desk(monkeypatch, tmp_path, Mode.OWN)
    desk.settle()
    assert desk.run() == [Dirty.RULES]
    desk.loop.close()


def test_a_resync_goes_step_by_step_and_rests(desk: Desk) -> None:
    """Each step's answer is requested; after the last one the next resync is half a minute off."""
    desk.settle()
    desk.loop._steps = iter([Dirty(0), Dirty.MAPS])
    before = desk.loop._resync_timer.due
    desk.loop._resync()
    assert desk.loop._pace.take() == Dirty(0)
    desk.loop._resync()
    assert desk.loop._pace.take() == Dirty.MAPS
    desk.loop._resync()
    assert desk.loop._resync_timer.due > before
    assert desk.done[-1] == "agent.resync"


def test_what_waits_for_a_second_is_done_by_the_clock(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings, sync and the server's door; what sync asks for is reconciled."""
    desk.settle()
    monkeypatch.setattr(loops, "time", Clock(step=0.4))
    for timer in desk.loop._timers:
        timer.due = 0.0
    desk.agent.answers["sync"] = ALL
    desk.agent.is_serving = True
    assert desk.run(2)[-1] & ALL
    assert {"agent.apply_settings", "agent.sync", "Server.listen", "Readiness.ready"} <= set(
        desk.done
    )


def test_all_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> None:
    """Systemd hears first that the agent stops."""
    desk = Desk(monkeypatch, tmp_path, Mode.ADOPT)
    desk.loop.close()
    closed = ["heartbeat.close", "Server.close", "routes.close", "rulesets.close", "xfrm.close"]
    assert desk.done[-6:] == ["Readiness.stopping", *closed]
