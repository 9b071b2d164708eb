# SPDX-License-Identifier: Apache-2.0
"""What is said of other nodes: the way to each, and the three entries in the kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from wellnode import CIDR, GATEWAY, MAC, PEER, WELL, complaints, told

from vxlane.doctor.checks.all import findings
from vxlane.host.entries import FdbEntry, Neighbour, Route
from vxlane.host.nexthops import NextHop
from vxlane.util.names import device_name

STRAY = "02:00:00:00:00:99"
_PUT = f"bridge fdb replace {MAC} dev flannel.1 dst {PEER} self permanent"
_DELETE = f"bridge fdb del {STRAY} dev flannel.1 dst {PEER} self"


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"ways": {PEER: NextHop(0, PEER, reason="no route")}}, "fail"),
        ({"states": {(2, PEER): 0x20}}, "fail"),
        ({"states": {(2, PEER): 0x01}}, "fail"),
        ({"silent": frozenset({PEER})}, "warn"),
        ({"states": {}}, None),
    ],
)
def test_reachable(changes, level):
    """No route or a next hop that does not answer fails; one nobody has asked for is no fault."""
    found = [(check, level) for check, level, _ in told("peers", **changes)]
    assert found == ([("peers", level)] if level else [])


def test_a_router_is_asked_by_its_device():
    """An address of the link alone says nothing without one."""
    router = IPv6Address("fe80::1")
    ways, states = {PEER: NextHop(2, router)}, {(2, router): 0x20}
    [(_, _, [command])] = told("peers", ways=ways, states=states)
    assert command == f"ping -c 1 -W 2 -I {device_name(2)} fe80::1"


@pytest.mark.parametrize("expected", [WELL.peers.expected, {}])
def test_wrong_forwarding_entry(expected):
    """A wrong MAC is one finding, with the source of nodes or without it."""
    forwarding = {STRAY: FdbEntry(STRAY, int(PEER), 3)}
    found = told("peers", expected=expected, forwarding=forwarding)
    assert found == [("entries", "fail", (_PUT, _DELETE))]


def test_mode_adopt_believes_the_kernel():
    """Entries that agree among each other and not with the annotation warn in mode adopt."""
    other = "02:00:00:00:00:77"
    moved = replace(
        WELL.peers,
        neighbours={GATEWAY: Neighbour(GATEWAY, other, 3)},
        forwarding={other: FdbEntry(other, int(PEER), 3)},
    )
    adopted = replace(WELL, agent=replace(WELL.agent, mode="adopt"), peers=moved)
    assert {found[:2] for found in complaints(adopted)} == {("entries", "warn")}
    assert {found[:2] for found in complaints(replace(WELL, peers=moved))} == {("entries", "fail")}


def test_many_peers_hide_nothing_else():
    """Of many findings of a check the first twenty are told, and how many more there are."""
    old = {number: Neighbour(number, MAC, 3) for number in range(1, 5001)}
    found = findings(replace(WELL, peers=replace(WELL.peers, neighbours=old)))
    stale = [finding.says for finding in found if finding.check == "stale-entries"]
    assert (len(stale), stale[-1]) == (21, "4980 more like these")


def test_the_list_of_a_dead_agent_may_be_old():
    """Beside a dead agent a finding says that the nodes which it goes by may be old."""
    dead = replace(
        WELL, agent=replace(WELL.agent, pid=None), peers=replace(WELL.peers, forwarding={})
    )
    (meaning,) = (found.meaning for found in findings(dead) if found.check == "entries")
    assert meaning.endswith("of a dead agent, and may be old")


def test_missing_entries():
    """Each entry that is missing is put back by its own command."""
    neighbour = f"ip neigh replace 10.42.2.0 lladdr {MAC} dev flannel.1 nud permanent"
    assert told("peers", neighbours={}) == [("entries", "fail", (neighbour,))]
    assert told("peers", forwarding={}) == [("entries", "fail", (_PUT,))]
    route = f"ip route replace {CIDR} via 10.42.2.0 dev flannel.1 onlink"
    assert told("peers", routes=()) == [("entries", "fail", (route,))]
    assert told("peers", routes=(), direct=frozenset({(GATEWAY, 24)})) == []


def test_a_peer_that_moved():
    """An FDB entry that leads to another address than the node has is put right."""
    forwarding = {MAC: FdbEntry(MAC, int(IPv4Address("192.168.77.99")), 3)}
    assert told("peers", forwarding=forwarding) == [("entries", "fail", (_PUT,))]


def test_stale_entries():
    """What is left of a node that is gone is told entry by entry."""
    old = int(IPv4Address("10.42.9.0"))
    routes = (*WELL.peers.routes, Route(old, 24, GATEWAY, 3, 4))
    assert told("peers", routes=routes) == [
        ("stale-entries", "warn", ("ip route del 10.42.9.0/24 dev flannel.1",))
    ]
    neighbours = {**WELL.peers.neighbours, old: Neighbour(old, MAC, 3)}
    assert told("peers", neighbours=neighbours) == [
        ("stale-entries", "warn", ("ip neigh del 10.42.9.0 dev flannel.1",))
    ]
    forwarding = {**WELL.peers.forwarding, STRAY: FdbEntry(STRAY, old, 3)}
    assert told("peers", forwarding=forwarding) == [
        ("stale-entries", "warn", (f"bridge fdb del {STRAY} dev flannel.1 dst 10.42.9.0 self",))
    ]
