# SPDX-License-Identifier: Apache-2.0
"""What conntrack is told of a connection, byte for byte, and how long it keeps silent ones."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from vxlane.host import conntrack
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import Request, group_mask
from vxlane.util.five_tuple import FiveTuple

TCP = 6
V4 = FiveTuple(ip_address("10.42.1.2"), ip_address("10.42.2.2"), 40000, 80, TCP)
V6 = FiveTuple(ip_address("fd00::1"), ip_address("fd00::2"), 40000, 80, TCP)

PORTS = "1c000280 0500010006000000 060002009c400000 0600030000500000"
ADDRESSES = {
    V4: "14000180 080001000a2a0102 080002000a2a0202",
    V6: f"2c000180 14000300 fd00{'00' * 13}01 14000400 fd00{'00' * 13}02",
}
ENTRIES = {
    V4: f"02000000 34000180 {ADDRESSES[V4]} {PORTS}",
    V6: f"0a000000 4c000180 {ADDRESSES[V6]} {PORTS}",
}
"""nfgenmsg, then CTA_TUPLE_ORIG with its CTA_TUPLE_IP and CTA_TUPLE_PROTO, as a dump shows them."""
CLOSED_IN_10_S = "10000480 0c000180 0500010008000000 080007000000000a"
"""CTA_PROTOINFO with its CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_CLOSE; CTA_TIMEOUT, big-endian."""


NEW, UPDATE, DESTROY = 1, 2, 3
"""Groups of conntrack's events (linux/netfilter/nfnetlink_compat.h)."""


class Netfilter:
    """Stands in for a netlink socket, and keeps what is written."""

    def __init__(self) -> None:
        self.written: list[Request] = []
        self.is_closed = False

    def write(self, requests: Sequence[Request]) -> list[int]:
        """See `NetlinkSocket`."""
        self.written += requests
        return [0] * len(requests)

    def close(self) -> None:
        """See `NetlinkSocket`."""
        self.is_closed = True


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /proc/sys/net/netfilter."""
    monkeypatch.setattr(conntrack, "_setting", lambda name: tmp_path / name)
    return tmp_path


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize(
    ("protocol", "groups", "heard"),
    [
        (nf.NETLINK_NETFILTER, [UPDATE], True),
        (nf.NETLINK_NETFILTER, [NEW, UPDATE, DESTROY, nf.NFNLGRP_NFTABLES], True),
        (nf.NETLINK_NETFILTER, [NEW, DESTROY, nf.NFNLGRP_NFTABLES], False),
        (nf.NETLINK_NETFILTER, [], False),
        (socket.NETLINK_ROUTE, [UPDATE], False),
    ],
)
def test_who_listens(protocol: int, groups: list[int], heard: bool) -> None:  # noqa: FBT001
    """Changes are heard by those who have joined their group, for as long as they do."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as listener:
        listener.bind((0, group_mask(*groups)))
        assert conntrack.is_heard() is heard
    assert not conntrack.is_heard()


def test_connections_are_closed_as_a_rst_would(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry, of either family, gets the state CLOSE and that state's own timeout."""
    (settings / "tcp_timeout_close").write_text("10\n")
    netlink, protocols = Netfilter(), []
    monkeypatch.setattr(
        conntrack, "NetlinkSocket", lambda protocol: protocols.append(protocol) or netlink
    )
    conntrack.close_connections([V4, V6])
    assert [request.body for request in netlink.written] == [
        bytes.fromhex(ENTRIES[V4] + CLOSED_IN_10_S),
        bytes.fromhex(ENTRIES[V6] + CLOSED_IN_10_S),
    ]
    assert {request.kind for request in netlink.written} == {0x100}  # CTNETLINK, NEW
    assert (protocols, netlink.is_closed) == ([12], True)


def test_the_shortest_timeout_counts(settings: Path) -> None:
    """Of the states that are asked for, those that this kernel has."""
    for name, seconds in ("tcp_timeout_established", "432000"), ("udp_timeout", "30"):
        (settings / name).write_text(f"{seconds}\n")
    assert conntrack.shortest_timeout("tcp_timeout_established", "udp_timeout", "none") == 30
    assert conntrack.shortest_timeout("tcp_timeout_established") == 432000


def test_without_conntrack_nothing_is_forgotten(settings: Path) -> None:
    """No setting is there to be read."""
    assert settings.is_dir()
    assert conntrack.shortest_timeout("udp_timeout") == math.inf
