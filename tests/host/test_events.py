# SPDX-License-Identifier: Apache-2.0
"""What the kernel's messages say may have changed."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess

import pytest

from vxlane.host.entries import FdbEntry, Neighbour, Route
from vxlane.host.events import Events, RouteEvents, _sort
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Message, attribute

DEVICE, NIC = 7, 3
ROUTE = Route(0x0A2A0200, 24, 0x0A2A0200, DEVICE, 4)
NEIGHBOUR = Neighbour(0x0A2A0200, "02:00:00:00:00:02", DEVICE)
FORWARDING = FdbEntry("02:00:00:00:00:02", 0xC0A84D02, DEVICE)


def heard(kind: int, body: bytes) -> Events:
    """What one message comes to, for the overlay's device."""
    events = Events()
    _sort(Message(kind, 0, 0, body), DEVICE, events)
    return events


def device(index: int, family: int = socket.AF_UNSPEC) -> bytes:
    """The head of a message about a device, of whichever kind."""
    return rt.IFINFOMSG.pack(family, 0, index, 0, 0)


@pytest.mark.parametrize(
    ("entry", "new", "deleted"),
    [
        (NEIGHBOUR, rt.RTM_NEWNEIGH, rt.RTM_DELNEIGH),
        (FORWARDING, rt.RTM_NEWNEIGH, rt.RTM_DELNEIGH),
        (ROUTE, rt.RTM_NEWROUTE, rt.RTM_DELROUTE),
    ],
)
def test_an_entry_is_told_as_it_is_now(
    entry: Neighbour | FdbEntry | Route, new: int, deleted: int
) -> None:
    """None once it is gone; our device's routes change no next hop."""
    assert heard(new, entry.put().body) == Events(entries={entry.key: entry})
    assert heard(deleted, entry.put().body) == Events(entries={entry.key: None})


def test_entries_of_other_devices_are_not_followed() -> None:
    """A neighbour of the NIC's concerns nobody; a route over it may be a next hop's."""
    assert heard(rt.RTM_NEWNEIGH, NEIGHBOUR._replace(device=NIC).put().body) == Events()
    route = ROUTE._replace(device=NIC, flags=0)
    assert heard(rt.RTM_NEWROUTE, route.put().body) == Events(
        entries={route.key: route}, routing=True
    )


def test_a_neighbour_that_failed_is_no_more() -> None:
    """A deleted one is first reported as new, without its MAC."""
    body = rt.NDMSG.pack(socket.AF_INET, DEVICE, 0x20, 0, 0)
    body += attribute(rt.NDA_DST, rt.BE32.pack(NEIGHBOUR.address))
    assert heard(rt.RTM_NEWNEIGH, body) == Events(entries={NEIGHBOUR.key: None})


def test_a_route_of_another_kind_makes_ours_doubtful() -> None:
    """It may have taken the place; one that goes gives it back by an event of its own."""
    head = rt.RTMSG.pack(socket.AF_INET, 24, 0, 0, rt.RT_TABLE_MAIN, 4, 0, rt.RTN_UNICAST, 0)
    body = head + attribute(rt.RTA_DST, rt.BE32.pack(ROUTE.network))
    assert heard(rt.RTM_NEWROUTE, body) == Events(doubtful={ROUTE.key}, routing=True)
    assert heard(rt.RTM_DELROUTE, body) == Events(routing=True)


@pytest.mark.parametrize("kind", [rt.RTM_NEWADDR, rt.RTM_DELADDR, rt.RTM_NEWRULE, rt.RTM_DELRULE])
def test_addresses_and_rules_are_routing(kind: int) -> None:
    """A next hop may be another. With its last address a device loses its routes without events."""
    events = heard(kind, device(NIC))
    assert events.routing is True
    assert events.touched == ({NIC} if kind == rt.RTM_DELADDR else set())


def test_a_device_that_goes_is_told_from_a_port_that_leaves() -> None:
    """RTM_DELLINK of the bridge family says that a port left its bridge."""
    assert heard(rt.RTM_DELLINK, device(12)) == Events(removed={12})
    assert heard(rt.RTM_DELLINK, device(12, socket.AF_BRIDGE)) == Events(touched={12})
    assert heard(rt.RTM_NEWLINK, device(12)) == Events(touched={12})


@pytest.mark.parametrize(
    "kind", [rt.RTM_NEWQDISC, rt.RTM_DELQDISC, rt.RTM_NEWTFILTER, rt.RTM_DELTFILTER]
)
def test_qdiscs_and_filters_touch_their_device(kind: int) -> None:
    """A shaper or a filter came to a veth, or went."""
    assert heard(kind, rt.TCMSG.pack(0, 12, 0, 0, 0)) == Events(touched={12})


def test_other_messages_say_nothing() -> None:
    """Nothing is to be read again."""
    assert heard(rt.RTM_GETLINK, device(12)) == Events()


def ip(line: str) -> None:
    """Run one command of iproute2 where the thread is."""
    subprocess.run(line.split(), check=True)


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("change", ["del id 1", "replace id 1 via 192.168.77.253 dev port"])
def test_a_nexthop_object_is_routing(change: str) -> None:
    """A route that goes with its nexthop object, or follows it, has no event of its own."""
    ip("ip link add port type veth peer name pod")
    for name in ("port", "pod"):
        ip(f"ip link set {name} up")
    ip("ip address add 192.168.77.1/24 dev port")
    ip("ip nexthop add id 1 via 192.168.77.254 dev port")
    ip("ip route add 172.16.0.0/16 nhid 1")
    with contextlib.closing(RouteEvents()) as events:
        while select.select([events], [], [], 0.5)[0]:
            events.read(0)
        ip(f"ip nexthop {change}")
        assert select.select([events], [], [], 1)[0]
        assert events.read(0).routing


@pytest.mark.usefixtures("netns")
def test_what_a_bridge_learns_is_not_heard() -> None:
    """A pod may send from any number of MACs; entries of the VXLAN device's own are heard."""
    ip("ip link add cni0 type bridge")
    ip("ip link add port master cni0 type veth peer name pod")
    ip("ip link add flannel.1 type vxlan id 1 dev lo dstport 8472 nolearning")
    for name in ("cni0", "port", "pod"):
        ip(f"ip link set {name} up")
    overlay = socket.if_nametoindex("flannel.1")
    with contextlib.closing(RouteEvents()) as events:
        while select.select([events], [], [], 0.5)[0]:
            events.read(overlay)  # of the devices that come up
        for number in range(10):
            ip(f"bridge fdb add 02:00:00:00:01:{number:02x} dev port master dynamic")
            ip(f"ip -6 neighbour add fe80::{number + 1} lladdr 02:00:00:00:00:01 dev port")
        assert not select.select([events], [], [], 0.2)[0]
        ip("bridge fdb add 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.2 self permanent")
        ip("ip neighbour add 10.42.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent")
        heard = events.read(overlay).entries
        assert set(heard.values()) == {
            FdbEntry("02:00:00:00:00:02", 0xC0A84D02, overlay),
            Neighbour(0x0A2A0200, "02:00:00:00:00:02", overlay),
        }
        ip("bridge fdb del 02:00:00:00:00:02 dev flannel.1 self")
        ip("ip neighbour del 10.42.2.0 dev flannel.1")
        assert set(events.read(overlay).entries.values()) == {None}
        ip("ip link set pod name eth0")
        assert events.read(overlay).touched
