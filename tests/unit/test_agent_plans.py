# SPDX-License-Identifier: Apache-2.0
"""The pure parts of the agent: paths, hold_down, net-conf.json, flags, guards."""

from __future__ import annotations

import dataclasses
import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.bypass.peers import Slots
from vxlane.cli.agent_options import _respelt
from vxlane.config import Network, parse_network
from vxlane.datapath.abi import Guard, Way
from vxlane.errors import ConfigError
from vxlane.host.devices import Device
from vxlane.host.entries import (
    Entries,
    Entry,
    Forwarding,
    Neighbour,
    Route,
    changes,
)
from vxlane.host.nexthops import NextHop
from vxlane.overlay.desired import AdoptedPlan, OwnPlan, entries_of, peer_of
from vxlane.overlay.hold_down import HOLD_DOWN, HoldDown
from vxlane.overlay.traced import TracedPeers
from vxlane.pods.attachments import Attachment, parse_attachment
from vxlane.pods.standing import judge
from vxlane.sources.model import Backend, Node
from vxlane.sources.snapshot import NOTHING_READ, Snapshot

NETWORK = IPv4Network("10.42.0.0/16")
OWN = Node("node1", IPv4Address("192.168.77.1"), IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
PEER = Node("node2", IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"), "02:00:00:00:00:02")
NEAR = NextHop(4, PEER.address)
FAR = NextHop(4, IPv4Address("192.168.77.254"))
TUNNEL = OwnPlan(Backend.VXLAN, device=9, routes_directly=False)
GATEWAY = int(PEER.pod_cidr.network_address)


def test_a_tunnel_is_neighbour_then_fdb_then_route() -> None:
    """The three entries of a peer stand in flannel's order: a route leads nowhere before."""
    path = TUNNEL.path(PEER, NEAR)
    assert path.way is Way.TUNNEL
    assert list(entries_of([path]).values()) == [
        Neighbour(GATEWAY, PEER.vtep_mac, 9),
        Forwarding(PEER.vtep_mac, int(PEER.address), 9),
        Route(GATEWAY, 24, GATEWAY, 9, 4),
    ]


@pytest.mark.parametrize(
    ("plan", "hop", "way"),
    [
        (OwnPlan(Backend.VXLAN, 9, routes_directly=True), NEAR, Way.DIRECT),
        (OwnPlan(Backend.VXLAN, 9, routes_directly=True), FAR, Way.TUNNEL),
        (AdoptedPlan(), NEAR, Way.TUNNEL),
    ],
)
def test_the_way_to_a_peer(plan: OwnPlan | AdoptedPlan, hop: NextHop, way: Way) -> None:
    """Own: direct if asked for and on our link. Adopted: as the kernel's entries have it."""
    assert plan.path(PEER, hop).way is way


def test_a_plain_route_to_a_peers_address_is_a_direct_way() -> None:
    """Adopted: what the kernel has counts, not what is near; another gateway is nobody's."""
    route = Route(GATEWAY, 24, int(PEER.address), 4, 0)
    traced = TracedPeers(9)
    traced.follow({route.key: route}, {route.key})
    assert traced.peers == {}
    traced.name([PEER])
    assert [AdoptedPlan().path(p, FAR).way for p in traced.peers.values()] == [Way.DIRECT]
    traced.name([dataclasses.replace(PEER, address=OWN.address)])
    assert traced.peers == {}


def test_host_gw_does_not_reach_behind_a_router() -> None:
    """With host-gw a peer behind a router is a Problem, not a wrong route."""
    plan = OwnPlan(Backend.HOST_GW, 0, routes_directly=False)
    peer = dataclasses.replace(PEER, backend=Backend.HOST_GW)
    path = plan.path(peer, FAR)
    assert (path.way, path.entries) == (None, ())
    assert path.problem
    assert "behind a router" in path.problem.reason


def test_a_peer_of_another_backend_is_no_peer() -> None:
    """A peer whose backend is not ours is reported and gets no entries."""
    path = TUNNEL.path(dataclasses.replace(PEER, backend=Backend.HOST_GW), NEAR)
    assert path.way is None
    assert path.problem
    assert path.problem.reason == "its backend is host-gw, this node's is vxlan"


@pytest.mark.parametrize(
    ("hop", "device", "nic", "mtu"),
    [
        (NEAR, 1450, 1500, 1450),
        (NEAR, 1450, 1400, 1350),
        (NEAR, 8950, 9000, 8950),
        (dataclasses.replace(NEAR, path_mtu=1300), 1450, 1500, 1250),
        (NextHop(0, PEER.address, reason="none"), 1450, 0, 0),
    ],
)
def test_the_inner_mtu_is_the_smallest(hop: NextHop, device: int, nic: int, mtu: int) -> None:
    """The device, the NIC less 50 and the path less 50: the smallest counts."""
    peer = peer_of(TUNNEL.path(PEER, hop), 3, device_mtu=device, nic_mtu=nic)
    assert (peer.mtu, peer.slot) == (mtu, 3)


def test_only_what_is_ours_is_stale() -> None:
    """Routes into the pod network are stale without a peer; routes to elsewhere are left alone."""
    stale = Route(int(IPv4Address("10.42.9.0")), 24, 5, 9, 4)
    foreign = Route(int(IPv4Address("10.99.0.0")), 24, 5, 9, 0)
    gone = Forwarding("02:00:00:00:00:99", 7, 9)
    actual = {entry.key: entry for entry in (stale, foreign, gone)}
    assert [change.was for change in changes({}, actual, NETWORK)] == [stale, gone]


def test_the_kernel_names_its_peers_by_the_list() -> None:
    """Entries of the kernel that lead to one another are a peer, under the name that is listed."""
    entries = entries_of([TUNNEL.path(PEER, NEAR)])
    traced = TracedPeers(9)
    traced.follow(entries, entries)
    assert [node.name for node in traced.peers.values()] == ["10.42.2.0/24"]
    traced.name([PEER])
    assert (list(traced.peers.values()), traced.problems) == ([PEER], {})
    traced.name([])
    assert [node.name for node in traced.peers.values()] == ["10.42.2.0/24"]


@pytest.mark.parametrize("lost", [Neighbour, Forwarding, Route])
def test_a_peer_lives_as_long_as_all_its_entries(lost: type[Entry]) -> None:
    """When one of the three entries goes the peer goes, with a report; with it it comes back."""
    entries = entries_of([TUNNEL.path(PEER, NEAR)])
    traced = TracedPeers(9)
    traced.follow(entries, entries)
    traced.name([PEER])
    for _ in range(2):
        entry = next(entry for entry in entries.values() if isinstance(entry, lost))
        del entries[entry.key]
        traced.follow(entries, {entry.key})
        assert traced.peers == {}
        assert [problem.node for problem in traced.problems.values()] == ["node2"]
        entries[entry.key] = entry
        traced.follow(entries, {entry.key})
        assert (list(traced.peers.values()), traced.problems) == ([PEER], {})


def test_traced_by_changes_or_anew_peers_are_the_same() -> None:
    """After 2,000 random changes of entries and names what was followed is what is traced anew."""
    dice = random.Random(8)
    entries: Entries = {}
    nodes: dict[int, Node] = {}
    followed = TracedPeers(9)
    for _ in range(2000):
        network = int(IPv4Address("10.42.0.0")) + 256 * dice.randrange(6)
        mac, address = f"02:00:00:00:00:0{dice.randrange(6)}", dice.randrange(1, 6)
        entry = dice.choice(
            [
                Neighbour(network, mac, 9),
                Forwarding(mac, address, 9),
                Route(network, 24, network + 256 * dice.randrange(2), 9, 4),
                Route(network, 24, address, 4, 0),
            ]
        )
        if dice.random() < 0.3:
            entries.pop(entry.key, None)
        else:
            entries[entry.key] = entry
        followed.follow(entries, {entry.key})
        cidr = IPv4Network((network, 24))
        nodes[network] = Node(f"node{network}", IPv4Address(address), cidr, mac)
        nodes.pop(int(IPv4Address("10.42.0.0")) + 256 * dice.randrange(6), None)
        followed.name(list(nodes.values()))
        anew = TracedPeers(9)
        anew.follow(entries, entries)
        anew.name(list(nodes.values()))
        assert (followed.peers, followed.problems) == (anew.peers, anew.problems)


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


def test_net_conf_keys_in_any_case() -> None:
    """Keys of net-conf.json count whatever their case, unknown ones do not count."""
    text = """{"NETWORK": "10.42.0.0/16", "enableNFTables": true, "Extra": 1,
               "backend": {"TYPE": "VXLAN", "vni": 7, "Directrouting": true, "PORT": 4789}}"""
    assert parse_network(text) == Network(
        cidr=NETWORK, vni=7, port=4789, routes_directly=True, uses_nftables=True
    )
    assert parse_network('{"Backend": {"Type": "vxlan"}}') == Network()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"Network": "10.42.0.1/16", "Backend": {"Type": "vxlan"}}', "Network '10.42.0.1/16'"),
        ('{"Network": "10.42.0.0/16"}', "Backend.Type 'udp'"),
        ('{"Backend": {"Type": "wireguard"}}', "known: vxlan, host-gw|vxlane's: vxlan, host-gw"),
        ('{"Backend": {"Type": "vxlan", "VNI": "1"}}', "vni must be a number"),
        ('{"Backend": {"Type": "vxlan", "GBP": 1}}', "gbp must be true or false"),
    ],
)
def test_a_wrong_net_conf_is_refused(text: str, reason: str) -> None:
    """What can't be in a net-conf.json is named."""
    with pytest.raises(ConfigError, match=reason):
        parse_network(text)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["-ip-masq"], ["--ip-masq"]),
        (["--ip-masq=false"], ["--no-ip-masq"]),
        (["-ip-masq=T", "--iface=eth0"], ["--ip-masq", "--iface=eth0"]),
        (["-iface", "eth0"], ["--iface", "eth0"]),
        (["-etcd-password", "-secret"], ["--etcd-password", "-secret"]),
        (["-v=4"], ["--v=4"]),
        (["-v", "4", "-h"], ["--v", "4", "-h"]),
    ],
)
def test_flags_as_go_spells_them(given: list[str], read: list[str]) -> None:
    """One dash or two, `=` for switches, and values that look like flags stay values."""
    assert list(_respelt(given, {"ip-masq"})) == read


def test_slots_are_used_again_as_late_as_can_be() -> None:
    """A freed slot is the last to be taken, and a full map has none."""
    slots = Slots([0, 2], capacity=4)
    assert (slots.take(), slots.take(), slots.take()) == (1, 3, None)
    slots.give_back(2)
    slots.give_back(0)
    assert (slots.take(), slots.take(), slots.take()) == (2, 0, None)


VETH = Device(
    index=7,
    name="veth7",
    kind="veth",
    mac="02:00:00:00:00:07",
    mtu=1450,
    master=5,
    is_up=True,
    qdisc="noqueue",
    is_isolated=False,
    filters_vlans=False,
)
BRIDGE = dataclasses.replace(VETH, index=5, name="cni0", kind="bridge", mtu=1400, master=0)
POD = Attachment("c1", "eth0", "", "veth7", "02:00:00:00:01:02", ("10.42.1.7",))


@pytest.mark.parametrize(
    ("veth", "bridge", "guard"),
    [
        (VETH, BRIDGE, Guard(0)),
        (dataclasses.replace(VETH, qdisc="tbf"), BRIDGE, Guard.TO_POD),
        (dataclasses.replace(VETH, is_isolated=True), BRIDGE, Guard.FROM_POD | Guard.TO_POD),
        (VETH, dataclasses.replace(BRIDGE, filters_vlans=True), Guard.FROM_POD | Guard.TO_POD),
    ],
    ids=["plain", "shaper", "isolated", "vlans"],
)
def test_guards_of_a_pod(veth: Device, bridge: Device, guard: Guard) -> None:
    """What keeps packets of a veth apart or back guards the direction that it is about."""
    [pod] = judge(POD, veth, bridge, others=Guard(0)).pods
    assert pod.guard == guard
    assert (pod.mtu, pod.gateway_mac, pod.bridge) == (1400, BRIDGE.mac, 5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"container_id": ""}, "container_id"),
        ({"ifname": "x" * 16}, "ifname"),
        ({"host_ifname": None}, "host_ifname"),
        ({"mac": "01:00:5e:00:00:01"}, "MAC '01:00"),
        ({"addresses": "10.42.1.7"}, "addresses"),
        ({"addresses": ["10.42.1"]}, "10.42.1"),
    ],
)
def test_a_wrong_attachment_names_its_field(change: dict[str, object], field: str) -> None:
    """A request that can't be an attachment is refused by the field that is wrong."""
    good: dict[str, object] = {
        "container_id": "c1",
        "ifname": "eth0",
        "host_ifname": "veth7",
        "mac": "02:00:00:00:01:02",
        "addresses": ["10.42.1.7"],
    }
    assert parse_attachment(good).addresses == ("10.42.1.7",)
    with pytest.raises(ConfigError, match=field):
        parse_attachment(good | change)
