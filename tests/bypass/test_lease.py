# SPDX-License-Identifier: Apache-2.0
"""What the programs are told besides peers and pods, and when it counts no more."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter

import pytest
from memorymaps import in_memory
from overlaystate import OVERLAY

from vxlane.bypass import lease as leases
from vxlane.bypass.lease import Lease, Terms
from vxlane.datapath.abi import Way
from vxlane.datapath.maps import Maps
from vxlane.mechanisms.concern import Judged
from vxlane.util.tally import Withdrawal

SECOND = 1_000_000_000
ESTABLISHED, CLOSE_WAIT, SYN_RECV, UDP = 432000.0, 60.0, 60.0, 120.0


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Maps:
    """Maps in memory; conntrack keeps streams five days and datagrams two minutes."""
    timeouts = {
        "tcp_timeout_established": ESTABLISHED,
        "tcp_timeout_unacknowledged": 300.0,
        "tcp_timeout_close_wait": CLOSE_WAIT,
        "tcp_timeout_fin_wait": 120.0,
        "tcp_timeout_syn_recv": SYN_RECV,
        "udp_timeout": UDP,
        "udp_timeout_stream": 180.0,
        "icmp_timeout": 150.0,
    }
    monkeypatch.setattr(leases, "shortest_timeout", lambda *states: min(map(timeouts.get, states)))
    return in_memory(monkeypatch)[0]


def lease_of(maps: Maps, revalidate: float) -> Lease:
    """A new agent's lease; `revalidate` in seconds."""
    return Lease(maps, Terms(revalidate=revalidate), Counter())


@pytest.fixture
def lease(maps: Maps) -> Lease:
    """A lease of 3 s from now, all settings written."""
    made = lease_of(maps, 20)
    made.apply(OVERLAY)
    made.renew(time.monotonic())
    return made


def test_all_settings_are_written(maps: Maps, lease: Lease) -> None:
    """The overlay's and the person's, with the lease that runs."""
    found = maps.settings()
    assert (found.revalidate, found.revalidate_datagram) == (20 * SECOND, 20 * SECOND)
    assert (found.address, found.vtep_mac) == (OVERLAY.address, OVERLAY.vtep_mac)
    assert found.has_direct is False
    lease.apply(OVERLAY)
    assert maps.settings() == found
    assert lease.is_held


def test_the_lease_runs_from_when_the_maps_were_true(maps: Maps, lease: Lease) -> None:
    """Three seconds from then; an older truth shortens no lease that runs."""
    now = time.monotonic()
    lease.renew(now)
    until = maps.settings().lease_until
    assert until == int((now + 3) * SECOND)
    lease.renew(now - 1)
    assert maps.settings().lease_until == until


def test_a_lease_runs_out(maps: Maps, lease: Lease) -> None:
    """What was true three seconds ago counts no more."""
    maps.put_settings(dataclasses.replace(maps.settings(), lease_until=0))
    old = lease_of(maps, 20)
    old.apply(OVERLAY)
    old.renew(time.monotonic() - 3.001)
    assert not old.is_held
    assert lease.is_held


def test_settings_of_an_earlier_agent_are_not_renewed(maps: Maps) -> None:
    """Not before all settings are this agent's own."""
    fresh = lease_of(maps, 20)
    fresh.renew(time.monotonic())
    assert maps.settings().lease_until == 0
    assert not fresh.is_held
    fresh.apply(OVERLAY)
    assert maps.settings().lease_until > 0


def test_a_lease_that_is_ended_is_not_renewed(maps: Maps, lease: Lease) -> None:
    """From here on nobody keeps the maps; what else they hold stays."""
    before = maps.settings()
    lease.end()
    assert maps.settings() == dataclasses.replace(before, lease_until=0)
    lease.renew(time.monotonic())
    assert maps.settings().lease_until == 0


def test_an_end_before_the_first_settings_writes_nothing(maps: Maps, lease: Lease) -> None:
    """An earlier agent's lease runs on while a later one that fails leaves."""
    lease_of(maps, 20).end()
    assert maps.settings().lease_until > 0
    assert lease.is_held


def test_approvals_age_before_conntrack_forgets(
    maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the timeout counts where that is shorter, and half of that in which an answer is
    awaited; without conntrack the person's word.
    """
    lease_of(maps, 1_000_000).apply(OVERLAY)
    found = maps.settings()
    assert found.revalidate == CLOSE_WAIT / 3 * SECOND
    assert found.revalidate_datagram == UDP / 3 * SECOND
    short = {"tcp_timeout_syn_recv": 10.0}
    monkeypatch.setattr(
        leases, "shortest_timeout", lambda *states: min(short.get(one, math.inf) for one in states)
    )
    lease_of(maps, 50).apply(OVERLAY)
    assert maps.settings().revalidate == 5 * SECOND
    monkeypatch.setattr(leases, "shortest_timeout", lambda *_: math.inf)
    lease_of(maps, 50).apply(OVERLAY)
    assert maps.settings().revalidate_datagram == 50 * SECOND


def test_direct_peers_are_told_of(maps: Maps) -> None:
    """Programs look for directly routed packets only where there is a direct way."""
    direct = dataclasses.replace(OVERLAY, exits=frozenset({(Way.DIRECT, 3)}))
    lease_of(maps, 20).apply(direct)
    assert maps.settings().has_direct is True


def test_a_start_and_a_flush_withdraw_all_approvals(maps: Maps) -> None:
    """The epoch is raised: nobody watched the rules before, and somebody asks now."""
    first = lease_of(maps, 20)
    first.apply(OVERLAY)
    assert (first.epoch, maps.settings().epoch) == (1, 1)
    assert first.flush(Withdrawal.ASKED) == 2
    assert (first.epoch, maps.settings().epoch) == (2, 2)
    second = lease_of(maps, 20)
    second.apply(OVERLAY)
    assert maps.settings().epoch == 3


def test_a_flush_leaves_the_rest(maps: Maps) -> None:
    """The lease and the addresses stay as they were written last."""
    lease = lease_of(maps, 20)
    lease.apply(OVERLAY)
    before = maps.settings()
    lease.flush(Withdrawal.ASKED)
    assert maps.settings() == dataclasses.replace(before, epoch=before.epoch + 1)


def test_the_epoch_begins_anew_after_the_last(maps: Maps) -> None:
    """It is 32 bits in the map."""
    lease = lease_of(maps, 20)
    lease.apply(OVERLAY)
    maps.put_settings(dataclasses.replace(maps.settings(), epoch=0xFFFFFFFF))
    assert lease_of(maps, 20).epoch == 0


def test_a_bypass_that_is_switched_off_has_no_lease(maps: Maps, lease: Lease) -> None:
    """Also after the next renewal; switched on again it has one at once."""
    lease.switch(OVERLAY, is_enabled=False)
    assert (lease.is_enabled, maps.settings().lease_until) == (False, 0)
    lease.renew(time.monotonic())
    assert maps.settings().lease_until == 0
    lease.switch(OVERLAY, is_enabled=True)
    assert lease.is_held


def test_until_rules_were_read_every_packet_is_judged(maps: Maps) -> None:
    """A start leaves all to the kernel path; the word of the rules is kept over renewals."""
    lease = lease_of(maps, 20)
    lease.apply(OVERLAY)
    assert maps.settings().judged is True
    lease.judge(Judged())
    assert maps.settings().judged is False
    lease.apply(OVERLAY)
    assert maps.settings().judged is False
    lease.judge(Judged(all=True))
    assert maps.settings().judged is True


def test_translated_flows_may_be_judged_alone(maps: Maps, lease: Lease) -> None:
    """What acts on packets to Services leaves plain flows alone, and stays when settings change."""
    lease.judge(Judged(translated=True))
    lease.apply(OVERLAY)
    assert (maps.settings().judged, maps.settings().judged_nat) == (False, True)
    lease.judge(Judged())
    assert maps.settings().judged_nat is False


def test_until_rules_were_read_one_may_drop(maps: Maps) -> None:
    """The ACK of a handshake must come out of netfilter until no rule can drop it."""
    lease = lease_of(maps, 20)
    for drops in (True, False, True):
        lease.apply(OVERLAY)
        assert maps.settings().may_drop is drops
        lease.judge(Judged(may_drop=not drops))


def test_who_listens_to_conntrack_is_told(maps: Maps, lease: Lease) -> None:
    """Somebody may, until it is known; the word of it is kept over renewals."""
    assert maps.settings().heard is True
    for is_heard in (False, True):
        lease.hear(is_heard=is_heard)
        lease.apply(OVERLAY)
        lease.renew(time.monotonic())
        assert maps.settings().heard is is_heard


def test_what_was_recorded_before_a_gap_counts_no_more(maps: Maps, lease: Lease) -> None:
    """Without a lease no program sees that a connection ends, and its port may be another's."""
    epoch = maps.settings().epoch
    lease.renew(time.monotonic())
    assert maps.settings().epoch == epoch
    lease.switch(OVERLAY, is_enabled=False)
    assert maps.settings().epoch == epoch
    lease.switch(OVERLAY, is_enabled=True)
    assert maps.settings().epoch == epoch + 1


def test_each_withdrawal_is_counted_by_its_reason(maps: Maps) -> None:
    """Wherever the epoch is raised: at the start, after a gap of the lease, and when asked to."""
    counted: Counter[Withdrawal] = Counter()
    lease = Lease(maps, Terms(revalidate=20), counted)
    lease.apply(OVERLAY)
    assert counted == {Withdrawal.START: 1}
    lease.renew(time.monotonic())
    lease.renew(time.monotonic())
    assert counted == {Withdrawal.START: 1, Withdrawal.LAPSE: 1}
    lease.flush(Withdrawal.PEERS)
    lease.flush(Withdrawal.PEERS)
    assert counted == {Withdrawal.START: 1, Withdrawal.LAPSE: 1, Withdrawal.PEERS: 2}
    assert sum(counted.values()) == maps.settings().epoch
