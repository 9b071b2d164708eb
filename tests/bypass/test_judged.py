# SPDX-License-Identifier: Apache-2.0
"""Whose packets are left to the kernel path, by what was read and what was not yet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from overlaystate import OVERLAY

from vxlane.bypass import judged as judged_module
from vxlane.bypass.judged import JudgedKeeper
from vxlane.config import Config
from vxlane.host.events import RulesetChange
from vxlane.mechanisms.concern import Judged
from vxlane.mechanisms.kinds import Finding, Kind, Scope
from vxlane.mechanisms.watcher import Question, Reading
from vxlane.pods.pods import PodPort

NETWORK, LOCAL = IPv4Network("10.42.0.0/16"), IPv4Network("10.42.1.0/24")
POD = IPv4Address("10.42.1.5")
PORTS = (PodPort(7, "veth7", 4, "", (POD,)),)
LIMIT = Finding(Kind.LIMIT, "here")
OF_POD = Finding(Kind.LIMIT, "here", Scope(sources=((int(POD), int(POD)),)))


@dataclass
class Readings:
    """A watcher that has read what a test says."""

    reading: Reading | None = None
    is_pending: bool = True
    does_concern: bool = True
    questions: list[Question] = field(default_factory=list)
    changes: list[RulesetChange] = field(default_factory=list)

    def request(self, question=None, change=None):
        """See Watcher."""
        if question:
            self.questions.append(question)
        if change:
            self.changes.append(change)

    def concerns(self, _):
        """See Watcher."""
        return self.does_concern

    def wait(self, _):
        """See Watcher."""

    def take(self):
        """See Watcher."""
        return self.reading

    def answer(self, *hindrances):
        """The last question is answered."""
        self.reading = Reading((), hindrances, self.questions[-1])
        self.is_pending = False

    def read(self, *found):
        """All that was asked for is read."""
        self.reading, self.is_pending = Reading(found), False


@pytest.fixture
def watcher():
    """What is read."""
    return Readings()


@pytest.fixture
def changes():
    """How many changes of rules there were, by whether they concern pods."""
    return Counter()


@pytest.fixture
def keeper(watcher, changes, tmp_path):
    """A keeper that ignores helpers."""
    config = Config("node", tmp_path, subnet_file=tmp_path / "subnet.env", ignored={Kind.HELPER})
    return JudgedKeeper(watcher, config, changes)


def test_all_are_left_alone_before_the_first_reading(keeper, watcher):
    """An agent that has read nothing yet bypasses nothing, and says so."""
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    assert keeper.judged == Judged(all=True)
    watcher.read()
    keeper.on_read()
    assert keeper.judged == Judged()


def test_rules_may_drop_until_the_last_question_is_answered(keeper, watcher):
    """What was read without the first pod's bridge says nothing of its packets."""
    keeper.reconcile(OVERLAY, (), NETWORK, LOCAL)
    for ports in ((), PORTS):
        keeper.reconcile(OVERLAY, ports, NETWORK, LOCAL)
        assert keeper.judged.may_drop
        watcher.reading = Reading(question=watcher.questions[-1], may_drop=False)
        watcher.is_pending = False
        keeper.on_read()
        assert keeper.judged == Judged(may_drop=False)


def test_all_are_left_alone_while_a_change_is_unread(keeper, watcher):
    """From a change that pods' packets may meet until it has been read nothing is bypassed."""
    watcher.read()
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    change = RulesetChange(frozenset({(2, "t", "c")}))
    watcher.is_pending = True
    assert keeper.on_rules(change)
    assert watcher.changes == [change]
    keeper.on_read()  # of what was asked before
    assert keeper.judged == Judged(all=True)
    watcher.read(OF_POD)
    keeper.on_read()
    assert keeper.judged == Judged(ports=frozenset({"veth7"}))


def test_a_change_that_can_not_be_met_is_no_matter(keeper, watcher):
    """Rules that no packet of a pod meets are not read, and leave approvals alone."""
    watcher.read(LIMIT)
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    watcher.does_concern = False
    assert not keeper.on_rules(RulesetChange())
    assert watcher.changes == []
    assert not keeper.is_unread


def test_changes_of_rules_are_counted(keeper, watcher, changes):
    """By whether packets of pods may meet them; those without events when they were read."""
    watcher.read()
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    keeper.on_rules(RulesetChange())
    watcher.does_concern = False
    keeper.on_rules(RulesetChange())
    keeper.on_rules(RulesetChange())
    assert changes == {True: 1, False: 2}
    watcher.reading = Reading((), has_silent_change=True)
    keeper.on_read()
    assert changes == {True: 2, False: 2}


def test_what_is_ignored_is_listed(keeper, watcher):
    """A kind that --ignore-mechanism names concerns nobody, and `vxlane status` says that."""
    watcher.read(Finding(Kind.HELPER, "there"))
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    assert keeper.judged == Judged()
    (shown,) = keeper.document()
    assert (shown["kind"], shown["pods"], shown["ignored"]) == ("helper", "all", True)


def test_what_only_translated_flows_meet_says_so(keeper, watcher, caplog):
    """Packets to Services alone are left to the kernel path; `vxlane status` and the log tell."""
    caplog.set_level("INFO")
    watcher.read(Finding(Kind.LIMIT, "there", is_translated=True))
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    assert keeper.judged == Judged(translated=True)
    assert [shown["flows"] for shown in keeper.document()] == ["translated"]
    assert "left to the kernel path: limit in there, for translated flows" in caplog.messages
    watcher.read(Finding(Kind.HELPER, "there", is_translated=True))
    keeper.on_read()
    assert keeper.judged == Judged()


def test_the_same_is_not_read_again(keeper, watcher):
    """Rules and devices are read anew only for other pods, peers or devices."""
    watcher.read()
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    assert len(watcher.questions) == 1
    keeper.reconcile(OVERLAY, (), NETWORK, LOCAL)
    assert len(watcher.questions) == 2


def test_tunnels_may_be_untracked_by_what_was_read_in_calm(keeper, watcher, monkeypatch):
    """Not before the first reading, nor after a change until it is read and some time has passed,
    nor by what was read for another question.
    """
    clock = [100.0]
    monkeypatch.setattr(judged_module.time, "monotonic", lambda: clock[0])
    assert keeper.hindrances is None
    watcher.read()
    keeper.reconcile(OVERLAY, PORTS, NETWORK, LOCAL)
    assert keeper.hindrances is None  # nobody asked yet when that was read
    watcher.answer("nft ip t c")
    keeper.on_read()
    assert keeper.hindrances == ("nft ip t c",)
    watcher.is_pending = True
    keeper.on_rules(RulesetChange(frozenset({(2, "t", "c")})))
    clock[0] += 10
    assert keeper.hindrances is None
    watcher.answer()
    keeper.on_read()
    assert keeper.hindrances == ()
    keeper.on_rules(RulesetChange(frozenset({(2, "t", "c")})))
    watcher.answer()
    keeper.on_read()
    assert keeper.hindrances is None
    clock[0] += 10
    assert keeper.hindrances == ()
    keeper.reconcile(OVERLAY, (), NETWORK, LOCAL)
    assert keeper.hindrances is None


def test_an_address_that_a_pod_may_have_stays_tracked(keeper, watcher):
    """Where the pods' network is not known, it may be any address."""
    keeper.reconcile(OVERLAY, PORTS, None, None)
    watcher.answer()
    keeper.on_read()
    assert keeper.hindrances == ("192.168.77.1 may be a pod's address",)


@pytest.mark.parametrize(
    ("text", "network", "local"),
    [
        ("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\n", NETWORK, LOCAL),
        ("FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16\n", IPv4Network("0.0.0.0/0"), None),
    ],
)
def test_flanneld_names_the_networks(keeper, watcher, tmp_path: Path, text, network, local):
    """Without a source of nodes subnet.env tells; what is not told may be any address."""
    (tmp_path / "subnet.env").write_text(text)
    watcher.read()
    keeper.reconcile(OVERLAY, PORTS, None, None)
    (question,) = watcher.questions
    assert question.view.network == network
    assert local in {None, question.view.local}
