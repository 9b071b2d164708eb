# SPDX-License-Identifier: Apache-2.0
"""A peer, or the way to it, changes under traffic: the bypass follows the kernel's own view."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address

import pytest
from abreast import abreast
from rig import ROUNDS, ifindex

from vxlane.lab import agents, namespaces, underlay
from vxlane.lab.underlay import ip
from vxlane.lab.waiting import wait_for

GATEWAYS = {"gateway1": "192.168.77.201", "gateway2": "192.168.77.202"}
ROUTER = (
    "net.ipv4.ip_forward=1",
    *(f"net.ipv4.conf.{x}.send_redirects=0" for x in ("all", "eth0")),
)


@pytest.fixture
def both(pair):
    """Traffic between the two nodes by either path."""
    with abreast(pair) as made:
        yield made


@pytest.fixture
def announce(pair):
    """Change what the list of nodes says of node2; at the end it says what it said."""
    lab = pair.lab

    def say(**changes):
        node1, node2 = lab.nodes
        agents.write_nodes(lab.nodes_file, [node1, dataclasses.replace(node2, **changes)])

    yield say
    say()


def peer(lab):
    """What node1's programs know of node2."""
    with lab.maps("node1") as maps:
        return maps.peers()[lab.node("node2").pod_cidr]


def test_vtep_mac(pair, both, announce):
    """The peer's VTEP gets another MAC."""

    def change_to(mac):
        announce(vtep_mac=mac)
        wait_for(lambda: peer(pair).vtep_mac == mac, "the peer's new MAC")
        shown = ["ip", "link", "show", "flannel.1"]
        wait_for(lambda: mac in pair.exec("node2", *shown).stdout, "its device's new MAC")

    both.survive(lambda: change_to("02:00:00:00:77:02"))
    both.survive(lambda: change_to(pair.node("node2").vtep_mac))


def test_node_address(pair, both, announce):
    """The peer gets another underlay address."""
    old, new = pair.address("node2"), "192.168.77.99"

    def move(before, after):
        node = pair.netns("node2")
        ip(node, f"address del {before}/24 dev eth0")
        ip(node, f"address add {after}/24 dev eth0")
        announce(address=IPv4Address(after))
        wait_for(lambda: peer(pair).address == IPv4Address(after), "the peer's new address")
        shown = ["ip", "-d", "link", "show", "flannel.1"]
        local = f" local {after} "
        # It is made anew, so it may be away for a moment.
        wait_for(lambda: local in pair.exec("node2", *shown, check=False).stdout, "its device")
        pair.ask("node2", op="status")  # answered when that reconcile is done

    both.survive(lambda: move(old, new))
    assert (peer(pair).address, peer(pair).next_hop) == (IPv4Address(new),) * 2
    both.survive(lambda: move(new, old))
    assert (peer(pair).address, peer(pair).next_hop) == (IPv4Address(old),) * 2


def test_next_hop_mac(pair, both):
    """The peer's NIC gets another MAC, and nobody is told."""
    both.survive(lambda: ip(pair.netns("node2"), "link set eth0 address 02:00:00:00:00:77"))


@pytest.fixture
def gateways(pair, make_netns):
    """Two routers on the underlay; their namespaces."""
    made = {}
    for name, address in GATEWAYS.items():
        made[name] = make_netns(name)
        underlay.plug(pair.lab.name, made[name], port=name)
        ip(made[name], f"address add {address}/24 dev eth0")
        namespaces.run(made[name], "sysctl", "-qw", *ROUTER)
    return made


def test_gateway(pair, both, gateways):
    """The way to the peer leads by a router, then by another because the first one dies."""
    node1, peers = pair.netns("node1"), pair.address("node2")
    first, second = GATEWAYS.items()

    def fail_over():
        ip(node1, f"route replace {peers}/32 via {second[1]} dev eth0")
        ip(gateways[first[0]], "link set eth0 down")

    try:
        both.survive(lambda: ip(node1, f"route add {peers}/32 via {first[1]} dev eth0"))
        assert peer(pair).next_hop == IPv4Address(first[1])
        both.survive(fail_over)
        assert peer(pair).next_hop == IPv4Address(second[1])
        forwarded = received(gateways[second[0]])
        both.assert_both_work()
        assert received(gateways[second[0]]) - forwarded >= 4 * ROUNDS
    finally:
        ip(node1, f"route del {peers}/32")
    both.survive(lambda: None)
    assert peer(pair).next_hop == IPv4Address(peers)


def received(netns):
    """Packets that a router's NIC has received."""
    return json.loads(ip(netns, "-j -s link show eth0"))[0]["stats64"]["rx"]["packets"]


def test_another_nic(pair, both):
    """The way to the peer leads by another NIC than the VXLAN device's own, until that goes."""
    node1, switch = pair.netns("node1"), pair.netns("switch")

    def unplug(cable):
        ip(switch, f"link del {cable}")
        # To this NIC node2 had begun to send, and would for as long as ARP takes.
        ip(pair.netns("node2"), "neighbour flush dev eth0")

    ip(switch, f"link add second type veth peer name eth1 netns {node1}")
    ip(switch, "link set second master br0 up")
    ip(node1, "link set eth1 up")
    route = f"{pair.address('node2')}/32 dev eth1 src {pair.address('node1')}"
    both.survive(lambda: ip(node1, f"route add {route}"))
    assert peer(pair).ifindex == ifindex(node1, "eth1")
    both.survive(lambda: unplug("second"))
    assert peer(pair).ifindex == ifindex(node1, "eth0")


def test_no_way(pair, both):
    """While a route calls the peer unreachable nothing is sent to it by either path."""
    node1, peers = pair.netns("node1"), pair.address("node2")

    def interrupt():
        ip(node1, f"route add unreachable {peers}/32")
        wait_for(lambda: peer(pair).ifindex == 0, "the agent to see it")
        with pair.verdicts("node1") as seen:
            wait_for(lambda: both.bypassed[0].silence > 0.5, "silence")
        assert seen["from_pod", "encapsulated"] == 0
        assert seen["from_pod", "flow_withdrawn"] > 0
        ip(node1, f"route del unreachable {peers}/32")

    both.survive(interrupt)
