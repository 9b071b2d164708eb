# SPDX-License-Identifier: Apache-2.0
"""Which list of nodes is gone by."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network

from vxlane.overlay.hold_down import HOLD_DOWN, HoldDown
from vxlane.sources.model import Node
from vxlane.sources.snapshot import NOTHING_READ, Snapshot, agree

OWN = Node("node1", IPv4Address("192.168.77.1"), IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
PEER = Node("node2", IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"), "02:00:00:00:00:02")


def test_own_missing_keeps_the_last_set() -> None:
    """A list without this node is not gone by; its reports are."""
    hold_down = HoldDown()
    good = Snapshot(OWN, (PEER,), read_at=1.0)
    hold_down.take(good, 1.0)
    taken = hold_down.take(Snapshot(None, (), error="down"), 2.0)
    assert (taken.own, taken.peers, taken.error) == (OWN, (PEER,), "down")


def test_vanished_peers_are_held_for_a_while() -> None:
    """Peers that vanish all at once stay, reported, until the hold-down ends."""
    other = dataclasses.replace(PEER, name="node3")
    hold_down = HoldDown()
    hold_down.take(Snapshot(OWN, (PEER, other), read_at=0.0), 0.0)
    empty = Snapshot(OWN, (), read_at=10.0)
    held = hold_down.take(empty, 10.0)
    assert held.peers == (PEER, other)
    assert "vanished at once" in held.problems[0].reason
    assert hold_down.take(empty, 11.0).problems == held.problems, (
        "a sentence that stays is said once"
    )
    assert hold_down.take(empty, 9.0 + HOLD_DOWN).peers == (PEER, other)
    assert hold_down.take(empty, 10.0 + HOLD_DOWN).peers == ()


def test_vanished_peers_come_back_one_by_one() -> None:
    """One that is back is as the source has it, and the others stay; but none whose pods' addresses
    are another node's by now.
    """
    others = [
        dataclasses.replace(
            PEER, name=f"node{number}", pod_cidr=IPv4Network(f"10.42.{number}.0/24")
        )
        for number in (3, 4, 5)
    ]
    hold_down = HoldDown()
    hold_down.take(agree([OWN, PEER, *others], "node1", read_at=0.0), 0.0)
    held = hold_down.take(agree([OWN], "node1", read_at=10.0), 10.0)
    moved = dataclasses.replace(PEER, pod_cidr=others[0].pod_cidr)
    back = agree([OWN, moved], "node1", read_at=11.0)
    taken = hold_down.take(back, 11.0)
    assert taken.peers == (moved, *others[1:])
    assert taken.problems == held.problems
    all_back = agree([OWN, moved, *others[1:]], "node1", read_at=12.0)
    assert hold_down.take(all_back, 12.0) is all_back
    assert hold_down.take(back, 13.0).peers == (moved,)


def test_the_last_peer_may_leave() -> None:
    """One peer that leaves a cluster of two leaves at once."""
    hold_down = HoldDown()
    hold_down.take(Snapshot(OWN, (PEER,), read_at=0.0), 0.0)
    assert hold_down.take(Snapshot(OWN, (), read_at=1.0), 1.0).peers == ()


def test_before_the_first_set_there_is_none() -> None:
    """Nothing known and nothing read is nothing."""
    assert HoldDown().take(NOTHING_READ, 0.0) is NOTHING_READ


def test_the_cache_waits_for_the_first_answer() -> None:
    """Remembered nodes serve when the source can't be read, and not before it has answered."""
    hold_down = HoldDown(Snapshot(OWN, (PEER,)))
    assert hold_down.take(NOTHING_READ, 0.0) is NOTHING_READ
    failed = hold_down.take(dataclasses.replace(NOTHING_READ, error="down"), 1.0)
    assert (failed.own, failed.peers, failed.error) == (OWN, (PEER,), "down")
    moved = dataclasses.replace(PEER, vtep_mac="02:00:00:00:00:99")
    assert hold_down.take(Snapshot(OWN, (moved,), read_at=2.0), 2.0).peers == (moved,)


def test_a_peer_that_was_deleted_does_not_come_back() -> None:
    """A remembered peer that the source no longer lists is gone with the source's first answer."""
    other = dataclasses.replace(PEER, name="node3")
    hold_down = HoldDown(Snapshot(OWN, (PEER, other)))
    assert hold_down.take(Snapshot(OWN, (other,), read_at=1.0), 1.0).peers == (other,)


def test_without_own_entry_the_peers_are_the_sources() -> None:
    """A list without this node holds our own entry, and the peers are those that it names."""
    hold_down = HoldDown(Snapshot(OWN, (PEER,)))
    moved = dataclasses.replace(PEER, vtep_mac="02:00:00:00:00:99")
    taken = hold_down.take(Snapshot(None, (moved,), read_at=1.0), 1.0)
    assert (taken.own, taken.peers) == (OWN, (moved,))
