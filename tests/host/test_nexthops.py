# SPDX-License-Identifier: Apache-2.0
"""What is read of the kernel's answers to "where would you send this": its own bytes (6.18)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest

from vxlane.host.nexthops import NextHop, Query, resolve
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Request, attribute, attributes

QUERY = Query(IPv4Address("192.168.77.1"), 8472)
ROUTER = IPv4Address("192.168.77.254")

HEAD = "02202000fe00000100020000 08000f00fe000000"  # IPv4, /32, main, unicast; RTA_TABLE
SOURCE, NIC = "08000200c0a84d01", "0800040003000000"
TAIL = "0800190000000000 24000c00" + 32 * "00"  # RTA_UID, RTA_CACHEINFO
ON_LINK = f"{HEAD} 08000100c0a84d02 {SOURCE} {NIC} {TAIL}"
BY_GATEWAY = f"{HEAD} 080001000a090001 {SOURCE} {NIC} 08000500c0a84dfe {TAIL}"
WITH_MTU = f"{BY_GATEWAY} 0c000800 0800020078050000"
VIA = f"{HEAD} 080001000a090001 {SOURCE} {NIC} 16001200 0a00 fe80{27 * '0'}1 0000 {TAIL}"
LOCAL = f"02202000fe00000200020080 08000f00fe000000 08000100c0a84d01 {SOURCE} {NIC} {TAIL}"
BROADCAST = LOCAL.replace("fe00000200020080", "fe00000300020080")


class Answering:
    """Stands in for a netlink socket: answers in order, and what was asked."""

    def __init__(self, *answers: bytes | int) -> None:
        self.answers = answers
        self.asked: list[Request] = []

    def request(self, requests: Sequence[Request]) -> list[bytes | int]:
        """See `NetlinkSocket`."""
        self.asked += requests
        return list(self.answers)


@pytest.mark.parametrize(
    ("address", "answer", "hop"),
    [
        ("192.168.77.2", ON_LINK, NextHop(3, IPv4Address("192.168.77.2"))),
        ("10.9.0.1", BY_GATEWAY, NextHop(3, ROUTER)),
        ("10.9.0.1", VIA, NextHop(3, IPv6Address("fe80::1"))),
        ("10.8.0.1", WITH_MTU, NextHop(3, ROUTER, path_mtu=1400)),
    ],
    ids=["on-link", "gateway", "gateway of IPv6", "mtu"],
)
def test_an_answer_is_a_next_hop(address: str, answer: str, hop: NextHop) -> None:
    """The device, the neighbour on the link, and the path MTU if the route has one."""
    target = IPv4Address(address)
    found = resolve(Answering(bytes.fromhex(answer)), [target], QUERY)
    assert found == {target: hop}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (errno.ENETUNREACH, "no route to 10.9.0.1 (ENETUNREACH)"),
        (errno.EINVAL, "no route to 10.9.0.1 (EINVAL)"),
        (9999, "no route to 10.9.0.1 (9999)"),
        (bytes.fromhex(BROADCAST), "the route to 10.9.0.1 is not a unicast one"),
    ],
    ids=["unreachable", "blackhole", "unknown", "broadcast"],
)
def test_no_way_says_why(answer: bytes | int, reason: str) -> None:
    """A refusal, and a route that leads to no neighbour, are no next hop and have a reason."""
    target = IPv4Address("10.9.0.1")
    assert resolve(Answering(answer), [target], QUERY)[target] == NextHop(0, target, reason=reason)


def test_an_own_address_is_known_as_such() -> None:
    """A peer that has it can be no other node."""
    found = resolve(Answering(bytes.fromhex(LOCAL)), [QUERY.source], QUERY)
    reason = "192.168.77.1 is this node's own address"
    assert found == {QUERY.source: NextHop(0, QUERY.source, reason=reason, is_own=True)}


def test_it_asks_as_the_device_sends() -> None:
    """UDP from our address to the device's port: for the way now, and for the whole route."""
    netlink = Answering(bytes.fromhex(ON_LINK))
    resolve(netlink, [IPv4Address("192.168.77.2")], QUERY)
    for asked, flags in zip(netlink.asked, (0, rt.RTM_F_FIB_MATCH), strict=True):
        assert asked.kind == rt.RTM_GETROUTE
        assert rt.RTMSG.unpack_from(asked.body) == (socket.AF_INET, 32, 32, *[0] * 5, flags)
        assert attributes(asked.body, rt.RTMSG.size) == {
            rt.RTA_DST: bytes([192, 168, 77, 2]),
            rt.RTA_SRC: QUERY.source.packed,
            rt.RTA_IP_PROTO: bytes([socket.IPPROTO_UDP]),
            rt.RTA_DPORT: struct.pack("!H", 8472),
        }


def test_a_route_that_spreads_names_all_its_nics() -> None:
    """A route of several ways leads by every NIC of theirs (RTA_MULTIPATH)."""
    target = IPv4Address("192.168.77.2")
    ways = b"".join(rt.RTNEXTHOP.pack(8, 0, 0, nic) for nic in (3, 9))
    route = bytes(rt.RTMSG.size) + attribute(rt.RTA_MULTIPATH, ways)

    class Spreading(Answering):
        """Answers the first question with one way, the second with the whole route."""

        def request(self, requests):
            answer = super().request(requests)
            return [route] if len(self.asked) > 1 else answer

    assert resolve(Spreading(bytes.fromhex(ON_LINK)), [target], QUERY)[target].spread == (3, 9)


def test_answers_are_told_apart_by_their_order() -> None:
    """Each address has its own answer; none asked, none answered."""
    near, far = IPv4Address("192.168.77.2"), IPv4Address("10.9.0.1")
    netlink = Answering(bytes.fromhex(BY_GATEWAY), bytes.fromhex(ON_LINK))
    found = resolve(netlink, iter([far, near]), QUERY)
    assert (found[far].neighbour, found[near].neighbour) == (ROUTER, near)
    assert resolve(Answering(), [], QUERY) == {}
