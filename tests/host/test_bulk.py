# SPDX-License-Identifier: Apache-2.0
"""Netlink in bulk: what is written is what iproute2 shows, and failures are told one by one."""

from __future__ import annotations

import errno
import json
import subprocess
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from vxlane.host import entries
from vxlane.host.events import RouteEvents
from vxlane.host.nexthops import Query, resolve
from vxlane.netlink.socket import NetlinkSocket, Request, attribute, attributes, split
from vxlane.overlay.keepers import EntryKeeper
from vxlane.util.dirty import Dirty

NETWORK = IPv4Network("10.0.0.0/9")
UNDERLAY = int(IPv4Address("10.128.0.0"))


def sh(script: str) -> str:
    """Run shell lines where the test's thread is."""
    return subprocess.run(["sh", "-ec", script], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def device(netns: str) -> int:
    """A VXLAN device on a wire; its ifindex."""
    sh(
        "ip link add eth0 type veth peer name wire0; ip addr add 10.128.0.1/9 dev eth0\n"
        "ip link set eth0 up; ip link set wire0 up\n"
        "ip link add flannel.1 type vxlan id 1 dev eth0 local 10.128.0.1 dstport 8472 nolearning\n"
        "ip link set flannel.1 up"
    )
    shown: list[dict[str, Any]] = json.loads(sh("ip -j link show flannel.1"))
    assert netns
    return int(shown[0]["ifindex"])


def peers(count: int, device: int) -> entries.Entries:
    """The entries of `count` peers."""
    found: entries.Entries = {}
    for number in range(1, count + 1):
        cidr = IPv4Network((int(NETWORK.network_address) + number * 256, 24))
        mac = bytes([2, 0, 0, 0, number >> 8, number & 255]).hex(":")
        for entry in entries.overlay(cidr, mac, UNDERLAY + 256 + number, device):
            found[entry.key] = entry
    return found


def test_a_thousand_peers_are_written_and_read_back(device: int) -> None:
    """3,000 entries written in lumps are read back equal, and iproute2 counts as many."""
    netlink = NetlinkSocket()
    desired, actual = peers(1000, device), entries.read(netlink, device)
    assert entries.write(netlink, entries.changes(desired, actual, NETWORK), actual) == []
    assert entries.read(netlink, device) == actual == desired
    assert len(sh("ip route show dev flannel.1").splitlines()) == 1000
    assert len(sh("ip neigh show dev flannel.1 nud permanent").splitlines()) == 1000
    assert len(sh("bridge fdb show dev flannel.1").splitlines()) == 1000
    assert entries.write(netlink, entries.changes({}, actual, NETWORK), actual) == []
    assert entries.read(netlink, device) == {}
    netlink.close()


def test_one_refusal_stops_no_other(device: int) -> None:
    """Refusals are told by errno, the rest is carried out; what is gone already is no refusal."""
    netlink = NetlinkSocket()
    good = entries.Route(UNDERLAY - 256, 24, UNDERLAY - 256, device, 4)
    bad = entries.Route(UNDERLAY - 512, 24, UNDERLAY - 512, 99, 4)
    wanted = [entries.Change(bad, None), entries.Change(good, None), entries.Change(None, bad)]
    actual: entries.Entries = {}
    failed = entries.write(netlink, wanted, actual)
    assert failed == [(wanted[0], errno.ENODEV)]
    assert actual == {good.key: good}
    netlink.close()


def test_routes_of_other_protocols_and_metrics_are_not_read(device: int) -> None:
    """Only routes as flannel writes them are read: protocol boot, metric 0, one gateway."""
    sh(
        "ip route add 10.1.0.0/24 via 10.128.0.9 proto static\n"
        "ip route add 10.2.0.0/24 via 10.128.0.9 metric 5\n"
        "ip route add 10.3.0.0/24 dev eth0; ip route add blackhole 10.4.0.0/24\n"
        "ip route add 10.5.0.0/24 nexthop via 10.128.0.9 nexthop via 10.128.0.8\n"
        "ip route add 10.6.0.0/24 via 10.128.0.9 table 99\n"
        "ip route add 10.7.0.0/24 via 10.128.0.9"
    )
    netlink = NetlinkSocket()
    [route] = entries.read(netlink, device).values()
    assert str(route) == "route 10.7.0.0/24 via 10.128.0.9 dev eth0"
    netlink.close()


def test_next_hops_are_the_kernels_own(device: int) -> None:
    """Gateway, neighbour and lack of a route are told as `ip route get` tells them."""
    sh("ip route add 172.16.0.0/16 via 10.128.0.254 mtu 1400")
    netlink = NetlinkSocket()
    far, near, nowhere = map(IPv4Address, ("172.16.1.1", "10.128.0.7", "8.8.8.8"))
    hops = resolve(netlink, [far, near, nowhere], Query(IPv4Address("10.128.0.1"), 8472))
    assert (hops[far].neighbour, hops[far].path_mtu) == (IPv4Address("10.128.0.254"), 1400)
    assert hops[near].neighbour == near
    eth0 = int(json.loads(sh("ip -j link show eth0"))[0]["ifindex"])
    assert hops[near].ifindex == hops[far].ifindex == eth0 != device
    assert (hops[nowhere].ifindex, hops[nowhere].reason) == (0, "no route to 8.8.8.8 (ENETUNREACH)")
    netlink.close()


def test_events_tell_what_happened_to_the_device(device: int) -> None:
    """Entries put and gone are told by key, what routes depend on as routing, links by ifindex."""
    events = RouteEvents()
    [neighbour, forwarding, route] = peers(1, device).values()
    sh(
        "ip neigh add 10.0.1.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud permanent\n"
        "bridge fdb add 02:00:00:00:00:01 dev flannel.1 dst 10.128.1.1 self permanent\n"
        "ip route add 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink"
    )
    told = events.read(device)
    assert list(told.entries.values()) == [neighbour, forwarding, route]
    assert not told.routing
    assert not told.doubtful
    sh("ip route replace 10.0.1.0/24 dev flannel.1 proto static")
    assert events.read(device).doubtful == {route.key}
    sh("ip route replace 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink")
    assert events.read(device).entries == {route.key: route}
    sh(
        "ip route del 10.0.1.0/24; bridge fdb del 02:00:00:00:00:01 dev flannel.1\n"
        "ip neigh del 10.0.1.0 dev flannel.1; ip link del eth0"
    )
    told = events.read(device)
    gone = dict.fromkeys([neighbour.key, forwarding.key, route.key])
    assert gone.items() <= told.entries.items()
    assert device in told.removed
    assert told.routing
    sh("ip link add veth7 type veth peer name pod7; ip link del veth7")
    assert not events.read(device).routing
    events.close()


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_change_while_entries_are_listed_is_no_doubt(device: int, *, is_heard: bool) -> None:
    """A resync keeps what an event reports after its dump, and reports what no event told."""
    netlink, events = NetlinkSocket(), RouteEvents()
    keeper = EntryKeeper(netlink)
    wanted = peers(3, device)
    entries.write(netlink, entries.changes(wanted, {}, NETWORK), {})
    keeper.read(device)
    events.read(device)
    sh("bridge fdb replace 02:00:00:00:00:02 dev flannel.1 dst 10.128.9.9 self permanent")
    dirty = Dirty(0)
    for step, found in enumerate(keeper.resync(device)):
        # After routes and neighbours, two steps each, FDB entries have been listed.
        if step == 4 and is_heard:
            keeper.follow(events.read(device))
        dirty |= found
    assert dirty == (Dirty(0) if is_heard else Dirty.ENTRIES)
    netlink.close()
    events.close()


def test_framing_survives_odd_lengths() -> None:
    """Attributes are padded to four bytes, and what is cut off is not read beyond its end."""
    body = b"\0" * 4 + attribute(1, b"abc") + attribute(2, b"")
    assert attributes(body, 4) == {1: b"abc", 2: b""}
    assert attributes(body[:-2], 4) == {1: b"abc"}
    assert attributes(b"\2\0\0\0", 0) == {}
    assert list(split(b"\x08\0")) == []
    assert Request(1, b"").intent == 0
