# SPDX-License-Identifier: Apache-2.0
"""The thread that reads: what it tells when it can't, and what it reads again."""

from __future__ import annotations

import contextlib
import select
from dataclasses import replace

import pytest
from reading import VIEW, sh

from vxlane.errors import KernelError
from vxlane.host.events import RulesetChange
from vxlane.mechanisms import legacy_reader
from vxlane.mechanisms.devices import Devices
from vxlane.mechanisms.ipvs import IpvsReader
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.legacy_reader import LegacyReader
from vxlane.mechanisms.watcher import Question, Watcher

IPVS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
"""
SERVICE = """\
TCP  0A60000A:0050 rr
  -> 0A2A0202:0050      Masq    1      0          0
"""
QUESTION = Question(VIEW, Devices((), ()))


class DevicesInTrouble:
    """Devices that can't be read as long as there is an error."""

    def __init__(self):
        self.error = None
        self.meanwhile = lambda: None
        self.reads = 0

    def findings(self, devices):
        """See DeviceReader."""
        assert devices == QUESTION.devices
        self.reads += 1
        self.meanwhile()
        if self.error:
            raise self.error
        return ()


@pytest.fixture
def devices():
    """The devices that the watcher reads."""
    return DevicesInTrouble()


@pytest.fixture
def services(tmp_path):
    """What stands for /proc/net/ip_vs, which is not there yet."""
    return tmp_path / "ip_vs"


@pytest.fixture
def watcher(netns, devices, services):
    """A watcher of a bare namespace."""
    assert netns
    with contextlib.closing(Watcher(devices, IpvsReader(services))) as made:
        yield made


def taken(watcher):
    """The next reading."""
    assert select.select([watcher.fileno()], [], [], 5)[0]
    return watcher.take()


def test_nothing_is_read_before_it_is_asked(watcher):
    """Without a question there is no reading, and nothing is pending."""
    watcher.request()
    assert not watcher.is_pending
    assert watcher.take() is None


@pytest.mark.parametrize("error", [KernelError("read", 1), OSError(5, "EIO"), ValueError("odd")])
def test_what_can_not_be_read_matters(watcher, devices, error):
    """While devices or rules can't be read that is a finding, and they are read again."""
    devices.error = error
    watcher.request(QUESTION)
    assert [finding.kind for finding in taken(watcher).found] == [Kind.UNKNOWN]
    devices.error = None
    assert taken(watcher).found == ()


def test_a_change_while_all_is_read_again_is_not_missed(watcher, devices):
    """Behind a failure no chain is known, and one that is read by now may change."""
    sh("nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; }")
    devices.error = KernelError("read", 1)
    watcher.request(QUESTION)
    taken(watcher)
    devices.error, heard = None, []
    change = RulesetChange(frozenset({(2, "t", "c")}))
    devices.meanwhile = lambda: heard.append(watcher.concerns(change))
    assert taken(watcher).found == ()
    assert heard == [True]
    assert not watcher.concerns(RulesetChange(frozenset({(2, "t", "d")})))


def test_only_what_changed_is_read(watcher, devices):
    """A change of rules reads rules; what is about unknown chains concerns no packet of a pod."""
    sh("nft", "add table ip t; add chain ip t c { type filter hook forward priority 0; }")
    watcher.request(QUESTION)
    taken(watcher)
    assert devices.reads == 1
    sh("nft", "add rule ip t c log")
    change = RulesetChange(frozenset({(2, "t", "c")}))
    assert watcher.concerns(change)
    assert not watcher.concerns(RulesetChange(frozenset({(2, "t", "d"), (2, "nat", "c")})))
    assert watcher.concerns(RulesetChange(bases=True))
    assert watcher.concerns(RulesetChange(lost=True))
    watcher.request(change=change)
    assert [finding.kind for finding in taken(watcher).found] == [Kind.LOG]
    assert devices.reads == 1


def test_a_change_of_legacy_rules_is_seen(watcher):
    """iptables-legacy tells nobody: its tables are compared once a second."""
    watcher.request(QUESTION)
    taken(watcher)
    sh("iptables-legacy", "-w", "-A", "FORWARD", "-j", "LOG")
    reading = taken(watcher)
    assert [finding.kind for finding in reading.found] == [Kind.LOG]
    assert reading.has_silent_change


def test_a_silent_change_is_told_behind_a_failure(watcher, devices):
    """What changed while something else could not be read has withdrawn nothing so far."""
    watcher.request(QUESTION)
    taken(watcher)
    devices.error = KernelError("read", 1)
    watcher.request()
    taken(watcher)
    sh("iptables-legacy", "-w", "-A", "FORWARD", "-j", "LOG")
    for _ in range(2):
        assert taken(watcher).found[0].kind is Kind.UNKNOWN
    devices.error = None
    while (reading := taken(watcher)).found[0].kind is Kind.UNKNOWN:
        pass
    assert [finding.kind for finding in reading.found] == [Kind.LOG]
    assert reading.has_silent_change
    watcher.request()
    assert not taken(watcher).has_silent_change


@pytest.mark.usefixtures("netns")
def test_a_table_that_can_not_be_understood_is_a_change_again(monkeypatch):
    """It is not taken for the one that was read before it."""
    with contextlib.closing(LegacyReader()) as reader:
        sh("iptables-legacy", "-w", "-A", "FORWARD", "-j", "ACCEPT")
        assert reader.refresh()
        before = reader.bases()
        sh("iptables-legacy", "-w", "-P", "FORWARD", "DROP")
        with monkeypatch.context() as patched:
            patched.setattr(legacy_reader, "table", lambda *_: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                reader.refresh()
        assert reader.refresh()
        assert [base.drops for base in set(reader.bases()) - set(before)] == [True]
        assert not reader.refresh()


def test_what_hinders_untracked_tunnels_is_told_where_it_is_asked(watcher):
    """Rules that tell them apart and rules that translate them; a change of the latter is none that
    withdraws approvals.
    """
    nat = "type nat hook postrouting priority 100"
    sh("nft", f"add table ip t; add chain ip t n {{ {nat}; }}; add rule ip t n masquerade")
    sh("nft", "add chain ip t c { type filter hook input priority 0; policy drop; }")
    sh("nft", "add rule ip t c ct state new accept")
    watcher.request(QUESTION)
    assert taken(watcher).hindrances == ()
    asking = replace(QUESTION, untracks=True)
    watcher.request(asking)
    reading = taken(watcher)
    assert reading.hindrances == ("nft ip t n", "nft ip t c")
    assert reading.question == asking
    assert watcher.concerns(RulesetChange(frozenset({(2, "t", "c")})))
    assert not watcher.concerns(RulesetChange(frozenset({(2, "t", "n")})))


def test_beside_iptables_legacy_tunnels_are_tracked(watcher):
    """Its changes have no events, so a rule of it might cost packets until it is read."""
    sh("iptables-legacy", "-w", "-t", "nat", "-L")
    watcher.request(replace(QUESTION, untracks=True))
    assert taken(watcher).hindrances == ("iptables-legacy, whose changes have no events",)


def test_services_of_ipvs_concern_translated_flows(watcher, services):
    """IPVS without services is no matter; with one its flows have timers that a bypass skips."""
    services.write_text(IPVS)
    watcher.request(QUESTION)
    assert taken(watcher).found == ()
    services.write_text(IPVS + SERVICE)
    reading = taken(watcher)
    assert [(each.kind, each.is_translated) for each in reading.found] == [(Kind.IPVS, True)]
    assert reading.has_silent_change
    services.unlink()
    assert taken(watcher).found == ()
