# SPDX-License-Identifier: Apache-2.0
"""Which list of nodes is gone by."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network

from vxlane.overlay.hold_down import HOLD_DOWN, HoldDown
from vxlane.sources.model import Node
from vxlane.sources.snapshot import NOTHING_READ, Snapshot

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
    hold_down.take(Snapshot(OWN, (PEER, other)), 0.0)
    empty = Snapshot(OWN, ())
    held = hold_down.take(empty, 10.0)
    assert held.peers == (PEER, other)
    assert "vanished at once" in held.problems[0].reason
    assert hold_down.take(empty, 9.0 + HOLD_DOWN).peers == (PEER, other)
    assert hold_down.take(empty, 10.0 + HOLD_DOWN).peers == ()


def test_the_last_peer_may_leave() -> None:
    """One peer that leaves a cluster of two leaves at once."""
    hold_down = HoldDown()
    hold_down.take(Snapshot(OWN, (PEER,)), 0.0)
    assert hold_down.take(Snapshot(OWN, ()), 1.0).peers == ()


def test_before_the_first_set_there_is_none() -> None:
    """Nothing known and nothing read is nothing."""
    assert HoldDown().take(NOTHING_READ, 0.0) is NOTHING_READ
