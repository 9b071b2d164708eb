# SPDX-License-Identifier: Apache-2.0
"""Entries as netlink has them, and what differs between those wanted and those there."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.host.entries import (
    Change,
    Entries,
    Entry,
    FdbEntry,
    Neighbour,
    Route,
    changes,
    direct,
    neighbour_key,
    neighbour_of,
    overlay,
    parsed,
    read,
    route_key,
    route_of,
    write,
)
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Intent, Request

NETWORK = IPv4Network("10.42.0.0/16")
CIDR = IPv4Network("10.42.2.0/24")
MAC, PEER = "02:00:00:00:00:02", int(IPv4Address("192.168.77.2"))
DEVICE, NIC = 7, 3
ONLINK = 4

NEIGHBOUR = Neighbour(int(CIDR.network_address), MAC, DEVICE)
FORWARDING = FdbEntry(MAC, PEER, DEVICE)
ROUTE = Route(int(CIDR.network_address), 24, int(CIDR.network_address), DEVICE, ONLINK)

HEAD = "02180000fe0300010000000008000f00fe000000"  # IPv4, /24, main, boot, unicast; RTA_TABLE
TO_CIDR, BY_PEER, BY_NIC = "080001000a2a0200", "08000500c0a84d02", "0800040003000000"
KERNELS_ROUTE = """
    02180000fe0300010400000008000f00fe000000 080001000a2a0200 080005000a2a0200 0800040007000000
"""
KERNELS_NEIGHBOUR = """
    020000000700000080000001 080001000a2a0200 0a0002000200000000020000 0800040000000000
    1400030021000000210000002100000000000000
"""
KERNELS_FORWARDING = """
    0700000007000000c0000201 0a0002000200000000020000 08000100c0a84d02
    1400030000000000210000002100000000000000
"""


def test_the_kernels_messages_are_the_entries() -> None:
    """What Linux 6.18 says of `ip route`, `ip neigh` and `bridge fdb` entries is read as they are.

    The FDB entry is NUD_NOARP too, as `bridge` makes it.
    """
    assert route_of(bytes.fromhex(KERNELS_ROUTE)) == ROUTE
    assert neighbour_of(bytes.fromhex(KERNELS_NEIGHBOUR), DEVICE) == NEIGHBOUR
    assert neighbour_of(bytes.fromhex(KERNELS_FORWARDING), DEVICE) == FORWARDING


@pytest.mark.parametrize(
    "message",
    [
        HEAD + TO_CIDR + "0800060005000000" + BY_PEER + BY_NIC,
        HEAD.replace("fe03", "fe04", 1) + TO_CIDR + BY_PEER + BY_NIC,
        HEAD.replace("0001", "0007", 1) + TO_CIDR + BY_PEER + BY_NIC,
        HEAD.replace("fe03", "fd03", 1) + TO_CIDR + BY_PEER + BY_NIC,
        HEAD.replace("02180000", "02180010", 1) + TO_CIDR + BY_PEER + BY_NIC,
        HEAD + TO_CIDR + "24000900100000000300000008000500c0a84d03100000000300000008000500c0a84d04",
        HEAD + TO_CIDR + BY_NIC,
        HEAD + BY_PEER + BY_NIC,
    ],
    ids=["metric", "static", "prohibit", "table", "tos", "multipath", "link", "default"],
)
def test_other_peoples_routes_are_not_read(message: str) -> None:
    """Only a single-hop route by a gateway, of table main, protocol boot, no metric and no TOS."""
    plain = route_of(bytes.fromhex(HEAD + TO_CIDR + BY_PEER + BY_NIC))
    assert plain == Route(int(CIDR.network_address), 24, PEER, NIC, 0)
    assert route_of(bytes.fromhex(message)) is None


def test_a_route_of_another_kind_is_known_by_its_network() -> None:
    """It may have taken the place of one of ours; one of another table, or the default, can't."""
    multipath = bytes.fromhex(HEAD + TO_CIDR + "080009000000000a")
    assert route_key(multipath) == ROUTE.key
    assert route_key(bytes.fromhex(HEAD.replace("fe03", "fd03", 1) + TO_CIDR)) is None
    assert route_key(bytes.fromhex(HEAD + BY_PEER)) is None


def test_only_permanent_entries_of_the_device_are_read() -> None:
    """Not what was learned, not another device's, not one that has no MAC yet, not a bridge's."""
    neighbour, forwarding = bytes.fromhex(KERNELS_NEIGHBOUR), bytes.fromhex(KERNELS_FORWARDING)
    assert neighbour_of(neighbour, DEVICE + 1) is None
    reachable = neighbour.replace(bytes([0x80, 0, 0, 1]), bytes([0x02, 0, 0, 1]))
    assert neighbour_of(reachable, DEVICE) is None
    without_mac = neighbour.replace(bytes.fromhex(MAC.replace(":", "")), bytes(6))
    assert neighbour_of(without_mac, DEVICE) is None
    of_the_master = forwarding.replace(bytes([0xC0, 0, 2]), bytes([0xC0, 0, 4]))
    assert neighbour_of(of_the_master, DEVICE) is None
    v6 = neighbour.replace(bytes.fromhex("080001000a2a0200"), bytes.fromhex("08000a000a2a0200"))
    assert neighbour_of(v6, DEVICE) is None


def test_events_name_the_entry_that_they_are_about() -> None:
    """A neighbour by its address, an FDB entry by its MAC, another device's by nothing."""
    neighbour, forwarding = bytes.fromhex(KERNELS_NEIGHBOUR), bytes.fromhex(KERNELS_FORWARDING)
    assert neighbour_key(neighbour, DEVICE) == NEIGHBOUR.key
    assert neighbour_key(forwarding, DEVICE) == FORWARDING.key
    assert neighbour_key(neighbour, DEVICE + 1) is None
    of_the_master = forwarding.replace(bytes([0xC0, 0, 2]), bytes([0xC0, 0, 4]))
    assert neighbour_key(of_the_master, DEVICE) is None


@pytest.mark.parametrize("entry", [NEIGHBOUR, FORWARDING, ROUTE])
def test_what_is_written_reads_back(entry: Entry) -> None:
    """A request to put an entry is a message of that entry."""
    body = entry.put().body
    found = route_of(body) if isinstance(entry, Route) else neighbour_of(body, DEVICE)
    assert found == entry
    assert entry.put().intent is Intent.PUT


@pytest.mark.parametrize(
    ("entry", "put", "remove"),
    [
        (
            NEIGHBOUR,
            "020000000700000080000001 080001000a2a0200 0a0002000200000000020000",
            "020000000700000000000000 080001000a2a0200",
        ),
        (
            FORWARDING,
            "070000000700000080000200 08000100c0a84d02 0a0002000200000000020000",
            "070000000700000080000200 0a0002000200000000020000",
        ),
        (
            ROUTE,
            "02180000fe03000104000000 080001000a2a0200 080005000a2a0200 0800040007000000",
            "02180000fe00ff0104000000 080001000a2a0200 080005000a2a0200 0800040007000000",
        ),
    ],
    ids=["neighbour", "forwarding", "route"],
)
def test_requests_are_header_and_attributes(entry: Entry, put: str, remove: str) -> None:
    """A request to remove names no more than the kernel needs to find the entry."""
    assert entry.put().body == bytes.fromhex(put)
    assert entry.remove().body == bytes.fromhex(remove)
    kinds = {Route: (rt.RTM_NEWROUTE, rt.RTM_DELROUTE)}
    wanted = kinds.get(type(entry), (rt.RTM_NEWNEIGH, rt.RTM_DELNEIGH))
    assert (entry.put().kind, entry.remove().kind) == wanted


def test_a_peers_entries_stand_in_the_order_to_write_them() -> None:
    """The route leads nowhere before the neighbour and the FDB entry are there."""
    assert overlay(CIDR, MAC, PEER, DEVICE) == (NEIGHBOUR, FORWARDING, ROUTE)
    assert direct(CIDR, PEER, NIC) == (Route(int(CIDR.network_address), 24, PEER, NIC, 0),)


def test_entries_are_told_as_their_commands() -> None:
    """A line of the log can be compared with what `ip` and `bridge` show."""
    assert str(NEIGHBOUR) == "neighbour 10.42.2.0 lladdr 02:00:00:00:00:02"
    assert str(FORWARDING) == "fdb 02:00:00:00:00:02 dst 192.168.77.2"
    assert str(ROUTE._replace(device=99999)) == "route 10.42.2.0/24 via 10.42.2.0 dev #99999 onlink"
    assert not str(ROUTE._replace(flags=0)).endswith("onlink")


@pytest.mark.parametrize(
    ("network", "length", "leads"),
    [("10.42.2.0", 24, True), ("10.42.0.0", 16, False), ("10.43.0.0", 24, False)],
)
def test_a_route_into_the_network_is_one_to_a_part(
    network: str, length: int, *, leads: bool
) -> None:
    """The route to the whole network is no peer's, and without a network none is."""
    route = Route(int(IPv4Address(network)), length, 1, DEVICE, 0)
    assert route.leads_into(NETWORK) is leads
    assert route.leads_into(None) is False


def test_only_what_is_ours_is_stale() -> None:
    """Routes into the pod network are stale without a peer; routes to elsewhere are left alone."""
    stale = Route(int(IPv4Address("10.42.9.0")), 24, 5, 9, 4)
    foreign = Route(int(IPv4Address("10.99.0.0")), 24, 5, 9, 0)
    gone = FdbEntry("02:00:00:00:00:99", 7, 9)
    actual = {entry.key: entry for entry in (stale, foreign, gone)}
    assert [change.was for change in changes({}, actual, NETWORK)] == [stale, gone]


def test_what_is_missing_or_different_comes_before_what_is_stale() -> None:
    """In the order wanted; what is as it should be is no change."""
    wanted = {entry.key: entry for entry in (NEIGHBOUR, FORWARDING, ROUTE)}
    other = FORWARDING._replace(address=PEER + 1)
    stale = NEIGHBOUR._replace(address=5)
    actual: Entries = {entry.key: entry for entry in (stale, NEIGHBOUR, other)}
    found = changes(wanted, actual, NETWORK)
    assert found == [Change(FORWARDING, other), Change(ROUTE, None), Change(None, stale)]
    assert [str(change).rpartition(": ")[2] for change in found] == [
        "was fdb 02:00:00:00:00:02 dst 192.168.77.3",
        "missing",
        "stale",
    ]
    assert str(found[2]).startswith("remove neighbour 0.0.0.5")


class Kernel:
    """Stands in for a netlink socket: refuses by `codes`, and keeps what was asked."""

    def __init__(self, *codes: int, bodies: dict[tuple[int, str], str] | None = None) -> None:
        self.codes = list(codes)
        self.bodies = bodies or {}
        self.written: list[Request] = []

    def write(self, requests: Sequence[Request]) -> list[int]:
        """See `NetlinkSocket`."""
        self.written += requests
        return self.codes

    def dump(self, request: Request) -> list[bytes]:
        """See `NetlinkSocket`."""
        return [bytes.fromhex(self.bodies[request.kind, request.body.hex()])]


def test_what_was_written_is_known_and_what_failed_is_told() -> None:
    """Success is noted; what was gone already is gone; another refusal is told, not noted."""
    stale, gone = NEIGHBOUR._replace(address=5), NEIGHBOUR._replace(address=6)
    busy = NEIGHBOUR._replace(address=7)
    actual: Entries = {entry.key: entry for entry in (stale, gone, busy)}
    wanted = [
        Change(FORWARDING, None),
        Change(ROUTE, None),
        Change(None, stale),
        Change(None, gone),
        Change(None, busy),
    ]
    kernel = Kernel(0, errno.ENETUNREACH, 0, errno.ENOENT, errno.EBUSY)
    failed = write(kernel, wanted, actual)
    assert failed == [(wanted[1], errno.ENETUNREACH), (wanted[4], errno.EBUSY)]
    assert actual == {FORWARDING.key: FORWARDING, busy.key: busy}
    assert [request.kind for request in kernel.written] == [
        rt.RTM_NEWNEIGH,
        rt.RTM_NEWROUTE,
        *[rt.RTM_DELNEIGH] * 3,
    ]


def test_a_replacement_that_is_refused_leaves_what_was() -> None:
    """ENOENT to a put says nothing of the entry that is there."""
    other = ROUTE._replace(device=NIC)
    actual: Entries = {other.key: other}
    assert write(Kernel(errno.EINVAL), [Change(ROUTE, other)], actual)
    assert actual == {other.key: other}


def test_a_node_without_a_device_has_routes_only() -> None:
    """With one, its neighbours and FDB entries are selected by the kernel, by its number."""
    bodies = {
        (rt.RTM_GETROUTE, "02000000fe00000000000000"): KERNELS_ROUTE,
        (rt.RTM_GETNEIGH, "0200000000000000000000000800080007000000"): KERNELS_NEIGHBOUR,
        (rt.RTM_GETNEIGH, "070000000700000000000000"): KERNELS_FORWARDING,
    }
    assert read(Kernel(bodies=bodies), 0) == {ROUTE.key: ROUTE}
    assert list(read(Kernel(bodies=bodies), DEVICE).values()) == [ROUTE, NEIGHBOUR, FORWARDING]
    assert parsed([bytes.fromhex(KERNELS_ROUTE)], DEVICE, Route) == {ROUTE.key: ROUTE}
