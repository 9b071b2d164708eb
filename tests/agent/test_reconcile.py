# SPDX-License-Identifier: Apache-2.0
"""What one reconcile does, what stops it and what does not; what an event asks for."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path as File

import pytest
from agentparts import OWN, READ, Parts, events, steps

from vxlane.config import Mode
from vxlane.errors import ConfigError, KernelError
from vxlane.sources.model import Node, Problem
from vxlane.sources.snapshot import NOTHING_READ, Snapshot
from vxlane.util.dirty import ALL, Dirty
from vxlane.util.tally import Withdrawal

BROKEN = KernelError("do it", 16)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> Parts:
    """A node on which all goes well."""
    return Parts(monkeypatch, tmp_path)


def test_a_first_reconcile_does_all_in_order(parts: Parts) -> None:
    """Announce, overlay, kernel path, programs, maps; then the node is ready.

    What was read before the programs were loaded is read again: to compile takes seconds, as long
    as a lease. The lease comes last: that of an agent before holds while the rules are read.
    """
    agent = parts.agent()
    began = time.monotonic()
    agent.reconcile(Dirty.NODES)
    assert began < agent.loaded_at < time.monotonic()
    assert parts.calls("source", "backend", "bypass") == [
        "backend.announcement",
        "source.announce",
        "backend.reconcile",
        "backend.apply",
        "backend.announcement",
        "backend.reconcile",
        "backend.apply",
        "bypass.reconcile",
        "bypass.judge",
        "bypass.serve",
        "source.ready",
    ]
    order = [parts.done.index(call) for call in ("judged.reconcile", "bypass.judge")]
    assert order == sorted(order)
    assert parts.dirty == [ALL]
    assert (agent.is_ready, agent.is_current, agent.is_serving) == (True, True, True)
    assert (agent.failures, agent.device, agent.reconciles) == ((), 9, 1)


def test_a_later_reconcile_does_what_is_dirty(parts: Parts) -> None:
    """Nothing is announced or loaded again; only a full one saves the nodes."""
    agent = parts.agent()
    agent.reconcile(ALL)
    assert parts.calls("cache") == ["cache.save"]
    parts.done.clear()
    agent.reconcile(Dirty.NODES)
    assert parts.dirty[-1] == Dirty.NODES
    assert "source.announce" not in parts.done
    assert (parts.loads, parts.calls("cache")) == (1, [])


def test_an_announcement_that_is_another_is_made(parts: Parts) -> None:
    """When the host changed and the answer is another than the one that was announced."""
    agent = parts.agent()
    agent.reconcile(ALL)
    agent.reconcile(Dirty.HOST)
    assert parts.done.count("source.announce") == 1
    said = parts.backend.answers["announcement"]
    parts.backend.answers["announcement"] = dataclasses.replace(said, vni=7)
    agent.reconcile(Dirty.NODES)
    assert parts.done.count("source.announce") == 1
    agent.reconcile(Dirty.HOST)
    assert parts.done.count("source.announce") == 2


@pytest.mark.parametrize("mode", list(Mode))
def test_without_our_own_entry_only_adopt_goes_on(parts: Parts, mode: Mode) -> None:
    """In mode own there is no pod CIDR to make a device for; flanneld's overlay is there anyway."""
    parts.snapshot = Snapshot(None, (), read_at=1.0)
    agent = parts.agent(mode=mode)
    agent.reconcile(ALL)
    assert "source.announce" in parts.done
    assert agent.is_ready is (mode is Mode.ADOPT)
    assert ("backend.reconcile" in parts.done) is (mode is Mode.ADOPT)


def test_before_the_source_was_read_nothing_is_announced(parts: Parts) -> None:
    """The MAC that peers know may be in its answer."""
    parts.snapshot = NOTHING_READ
    agent = parts.agent()
    agent.reconcile(ALL)
    assert parts.calls("source", "backend") == []
    assert (agent.is_ready, agent.is_current, agent.failures) == (False, False, ())
    parts.snapshot = READ
    agent.reconcile(Dirty.NODES)
    assert (agent.is_ready, parts.dirty) == (True, [ALL])


def test_an_overlay_that_fails_stops_the_rest_and_is_tried_again(parts: Parts) -> None:
    """The old overlay stays known, maps are not current, and the node not ready."""
    parts.backend.failing["reconcile"] = ConfigError("no network")
    agent = parts.agent()
    agent.reconcile(ALL)
    assert agent.failures == ("no network",)
    assert (agent.is_ready, agent.is_current, parts.loads) == (False, False, 0)
    parts.backend.failing.clear()
    agent.reconcile(ALL)
    assert (agent.failures, agent.is_ready) == ((), True)
    parts.backend.failing["reconcile"] = BROKEN
    agent.reconcile(Dirty.HOST)
    assert (agent.device, agent.is_current, agent.is_ready) == (9, False, True)


def test_programs_that_do_not_load_leave_the_node_its_network(parts: Parts) -> None:
    """It is ready and serves; they are not loaded again with every reconcile."""
    parts.load_failure = KernelError("load", 1)
    agent = parts.agent()
    agent.reconcile(ALL)
    agent.reconcile(Dirty.NODES)
    assert (agent.is_ready, agent.is_serving, agent.is_current) == (True, True, False)
    assert (parts.loads, len(agent.failures)) == (1, 1)


@pytest.mark.parametrize("change", ["constants", "is_whole"])
def test_programs_that_do_not_fit_are_loaded_anew(parts: Parts, change: str) -> None:
    """Other constants, or pins that are not ours any more: all is compared then."""
    agent = parts.agent()
    agent.reconcile(ALL)
    setattr(parts.bypass, change, False)
    agent.reconcile(Dirty.NODES)
    assert "bypass.close" in parts.done
    assert (parts.loads, parts.dirty[-1]) == (2, ALL)


def test_a_bypass_that_fails_is_no_current_map(parts: Parts) -> None:
    """The lease is not renewed by what was not done; the node keeps its network."""
    agent = parts.agent()
    agent.reconcile(ALL)
    parts.bypass.failing["reconcile"] = BROKEN
    agent.reconcile(Dirty.NODES)
    assert (agent.is_current, agent.is_ready, len(agent.failures)) == (False, True, 1)


@pytest.mark.parametrize(
    ("held", "enabled", "serves"),
    [(True, True, True), (False, True, False), (False, False, True)],
)
def test_a_node_serves_while_its_lease_holds(
    parts: Parts, *, held: bool, enabled: bool, serves: bool
) -> None:
    """Or while the bypass is switched off by a person."""
    agent = parts.agent()
    assert agent.is_serving is False
    agent.reconcile(ALL)
    parts.lease.is_held, parts.lease.is_enabled = held, enabled
    assert agent.is_serving is serves


@pytest.mark.parametrize(
    ("mode", "clears", "tells"),
    [(Mode.OWN, True, 1), (Mode.OWN, False, 0), (Mode.ADOPT, True, 0)],
)
def test_the_cluster_is_told_once(parts: Parts, mode: Mode, tells: int, *, clears: bool) -> None:
    """That the network is up: in mode own, where the option says so."""
    agent = parts.agent(mode=mode, clears_unavailable=clears)
    agent.reconcile(ALL)
    agent.reconcile(ALL)
    assert parts.done.count("source.ready") == tells


def test_problems_of_all_parts_are_told_once(parts: Parts) -> None:
    """Of the source and of the overlay, each once."""
    problem, other = Problem("node2", "bad MAC"), Problem("node1", "no bridge")
    parts.snapshot = dataclasses.replace(READ, problems=(problem,))
    overlay = parts.backend.answers["reconcile"]
    parts.backend.answers["reconcile"] = dataclasses.replace(overlay, problems=(other, problem))
    agent = parts.agent()
    agent.reconcile(ALL)
    assert agent.problems.current == (problem, other)


def test_peers_that_vanish_are_held(parts: Parts) -> None:
    """What is reconciled is not what the source says when it lost all of them at once."""
    address, cidr = OWN.address + 1, OWN.pod_cidr
    peers = tuple(Node(f"node{n}", address + n, cidr, f"02:00:00:00:00:1{n}") for n in (2, 3))
    parts.snapshot = Snapshot(OWN, peers, read_at=1.0)
    agent = parts.agent()
    agent.reconcile(ALL)
    parts.snapshot = READ
    agent.reconcile(Dirty.NODES)
    assert agent.snapshot.peers == peers


def running(parts: Parts):
    """An agent that has reconciled once; what was done is forgotten."""
    agent = parts.agent()
    agent.reconcile(ALL)
    parts.done.clear()
    return agent


def test_events_that_were_lost_ask_for_all(parts: Parts) -> None:
    """Filters and rules may be others too, and approvals are withdrawn."""
    agent = running(parts)
    assert agent.on_event(events(lost=True)) == ALL
    assert {"pods.lost_track", "judged.read_devices"} <= set(parts.done)
    assert parts.withdrawals == [Withdrawal.EVENTS_LOST]


@pytest.mark.parametrize(
    ("happened", "dirty", "withdrawals"),
    [
        ({}, Dirty(0), []),
        ({"routing": True}, Dirty.HOST | Dirty.ROUTES, [Withdrawal.ROUTES]),
        ({"touched": {9}}, Dirty.HOST | Dirty.ROUTES | Dirty.ENTRIES, [Withdrawal.DEVICES]),
        ({"touched": {3}}, Dirty.HOST | Dirty.ROUTES | Dirty.ENTRIES, [Withdrawal.DEVICES]),
        ({"removed": {9}}, Dirty.HOST | Dirty.ROUTES | Dirty.ENTRIES, [Withdrawal.DEVICES]),
        ({"touched": {77}, "removed": {78}}, Dirty(0), []),
    ],
    ids=["nothing", "routing", "device", "nic", "gone", "others"],
)
def test_an_event_asks_for_what_it_may_have_changed(
    parts: Parts, happened: dict[str, object], dirty: Dirty, withdrawals: list[Withdrawal]
) -> None:
    """Where the way out may be another, each flow goes through the kernel path once more.

    The reason is told.
    """
    agent = running(parts)
    assert agent.on_event(events(**happened)) == dirty
    assert parts.withdrawals == withdrawals


def test_pods_hear_of_devices_first(parts: Parts) -> None:
    """Removed ones and changed ones at once; what the overlay says is added."""
    agent = running(parts)
    parts.pods.answers["devices_changed"] = True
    parts.backend.answers["on_event"] = Dirty.NODES
    assert agent.on_event(events(touched={12}, removed={11})) == Dirty.PODS | Dirty.NODES
    heard = ["pods.devices_removed", "pods.devices_changed", "pods.check_changed"]
    assert parts.calls("pods") == heard


def test_before_there_is_an_overlay_every_event_asks_for_the_host(parts: Parts) -> None:
    """The device that is waited for may have come."""
    parts.snapshot = NOTHING_READ
    agent = parts.agent()
    assert agent.on_event(events()) == Dirty.HOST | Dirty.ROUTES


@pytest.mark.parametrize(("concerns", "flushes"), [(True, 1), (False, 0)])
def test_rules_that_concern_pods_withdraw_approvals(
    parts: Parts, flushes: int, *, concerns: bool
) -> None:
    """First of all tunnels are tracked, for new rules may drop untracked packets. The programs are
    told whom to leave alone before the approvals go.
    """
    agent = running(parts)
    parts.judged.answers = {"on_rules": concerns, "on_read": concerns}
    agent.on_rules(None)
    done = ["NotrackKeeper.reconcile", "bypass.judge", "lease.flush"]
    assert parts.calls("NotrackKeeper", "bypass", "lease") == done * flushes
    parts.done.clear()
    agent.on_read()
    assert parts.done.count("lease.flush") == flushes
    assert parts.done[-2:] == ["bypass.judge", "NotrackKeeper.reconcile"]
    assert parts.withdrawals == [Withdrawal.RULES] * 2 * flushes


def test_a_resync_goes_on_behind_a_part_that_fails(parts: Parts) -> None:
    """Nodes and host first; a failed step ends its part, is told, and is tried again."""
    agent = running(parts)
    parts.backend.answers["resync"] = steps(Dirty(0), then=BROKEN)
    parts.bypass.answers["resync"] = steps(Dirty.MAPS)
    assert list(agent.resync()) == [Dirty.NODES | Dirty.HOST, Dirty(0), Dirty.MAPS]
    assert len(agent.failures) == 1
    assert agent.is_ready


@pytest.mark.parametrize(("whole", "dirty"), [(True, Dirty(0)), (False, ALL)])
def test_what_waits_for_a_second_is_done(parts: Parts, dirty: Dirty, *, whole: bool) -> None:
    """Nodes and undo are saved, conntrack is told; pins that are not ours ask for all."""
    agent = running(parts)
    parts.bypass.is_whole = whole
    assert agent.sync() == dirty
    assert parts.done == [
        "cache.save",
        "UndoFile.save",
        "NotrackKeeper.reconcile",
        "bypass.sync_connections",
        "bypass.remove_abandoned_tracer",
    ]


def test_a_cache_that_cant_be_saved_stops_nothing(parts: Parts) -> None:
    """The node stays ready, and the failure is told."""
    parts.cache.failing["save"] = KernelError("write nodes.json", 28)
    agent = parts.agent()
    agent.reconcile(ALL)
    assert agent.is_ready
    assert len(agent.failures) == 1
    parts.done.clear()
    agent.close()
    done = ("cache.save", "Watcher.close", "NotrackKeeper.close", "bypass.close", "Devices.close")
    assert parts.done == [*done]


def test_the_lease_and_the_settings_are_the_programs(parts: Parts) -> None:
    """They are renewed and written where there are programs, and no harm is done where not."""
    agent = parts.agent()
    agent.renew(1.0)
    agent.apply_settings()
    assert agent.sync() == Dirty(0)
    assert parts.calls("lease", "bypass") == []
    agent.reconcile(ALL)
    parts.done.clear()
    agent.renew(1.0)
    agent.apply_settings()
    assert parts.done == ["lease.renew", "lease.apply"]


def test_devices_that_rules_may_meet_are_read_again(parts: Parts) -> None:
    """When an event is about one of them, and with each resync."""
    agent = running(parts)
    parts.judged.answers["has_device"] = True
    agent.on_event(events(touched={77}))
    assert "judged.read_devices" in parts.done
    parts.done.clear()
    parts.bypass.answers["resync"] = steps()
    list(agent.resync())
    assert parts.done[-1] == "judged.read_devices"
