# SPDX-License-Identifier: Apache-2.0
"""What differs between the entries that are wanted and those that are there."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from vxlane.host.entries import (
    Forwarding,
    Route,
    changes,
)

NETWORK = IPv4Network("10.42.0.0/16")


def test_only_what_is_ours_is_stale() -> None:
    """Routes into the pod network are stale without a peer; routes to elsewhere are left alone."""
    stale = Route(int(IPv4Address("10.42.9.0")), 24, 5, 9, 4)
    foreign = Route(int(IPv4Address("10.99.0.0")), 24, 5, 9, 0)
    gone = Forwarding("02:00:00:00:00:99", 7, 9)
    actual = {entry.key: entry for entry in (stale, foreign, gone)}
    assert [change.was for change in changes({}, actual, NETWORK)] == [stale, gone]
