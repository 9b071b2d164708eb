# SPDX-License-Identifier: Apache-2.0
"""The programs send where the kernel would: routes, addresses and MTUs are followed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from agentnode import AgentNode, eventually

from vxlane.datapath.records import Peer

CIDR = IPv4Network("10.42.9.0/24")
FAR = "  - {name: node9, address: 172.16.0.9, podCIDR: 10.42.9.0/24}"


def peer(node: AgentNode) -> Peer:
    """What the programs know of node9."""
    with node.maps() as maps:
        return maps.peers()[CIDR]


def index(node: AgentNode, name: str) -> int:
    """The ifindex of a device."""
    return int(node.link(name)["ifindex"])


def test_a_peer_on_the_link_is_its_own_next_hop(running: AgentNode) -> None:
    """A peer in the NIC's subnet is sent to directly."""
    with running.maps() as maps:
        near = maps.peers()[IPv4Network("10.42.2.0/24")]
    assert near.next_hop == IPv4Address("192.168.77.2")
    assert near.ifindex == index(running, "eth0")
    assert near.mtu == 1450


def test_a_gateway_is_followed(node: AgentNode) -> None:
    """A route's gateway is the next hop; another gateway or MTU is followed."""
    node.sh("ip route add 172.16.0.0/24 via 192.168.77.254")
    node.write_nodes(2, 3, extra=FAR)
    node.start()
    assert peer(node).next_hop == IPv4Address("192.168.77.254")
    node.sh("ip route replace 172.16.0.0/24 via 192.168.77.253")
    eventually(lambda: peer(node).next_hop == IPv4Address("192.168.77.253"), "gateway")
    node.sh("ip route replace 172.16.0.0/24 via 192.168.77.253 mtu 1300")
    eventually(lambda: peer(node).mtu == 1250, "MTU of the route")
    node.sh("ip link set eth0 mtu 1400")
    eventually(lambda: "was 1450" in node.log(), "MTU of the device")


def test_without_a_route_there_is_no_way(node: AgentNode) -> None:
    """A peer that no route leads to has no next hop, as it has none for the VXLAN device."""
    node.sh("ip route add 172.16.0.0/24 via 192.168.77.254")
    node.write_nodes(2, 3, extra=FAR)
    node.start()
    node.sh("ip route replace unreachable 172.16.0.0/24")
    eventually(lambda: peer(node).ifindex == 0, "no way")
    assert any("no route to 172.16.0.9" in problem for problem in node.status()["problems"])


def test_a_peer_without_a_way_is_not_sent_to(node: AgentNode) -> None:
    """A peer whose address is our own, or else no unicast one, has no next hop, and is reported."""
    node.sh("ip route add 172.16.0.0/24 via 192.168.77.254")
    node.write_nodes(2, 3, extra=FAR)
    node.start()
    node.sh("ip addr add 172.16.0.9/32 dev eth0")
    eventually(lambda: peer(node).ifindex == 0, "no way")
    assert any(
        "172.16.0.9 is this node's own address" in problem for problem in node.status()["problems"]
    )
    node.sh("ip addr del 172.16.0.9/32 dev eth0")
    eventually(lambda: peer(node).ifindex == index(node, "eth0"), "the way")


def test_programs_stand_on_the_nic_that_is_used(node: AgentNode) -> None:
    """from_nic stands where packets of peers come in; it moves when the underlay does."""
    node.sh(
        "ip link add eth1 type veth peer name wire1",
        "ip link set eth1 up; ip link set wire1 up",
    )
    node.start()
    assert on_nics(node) == {"eth0"}
    node.sh("ip addr del 192.168.77.1/24 dev eth0; ip addr add 192.168.77.1/24 dev eth1")
    eventually(lambda: peers_use(node, "eth1"), "the other NIC")
    eventually(lambda: on_nics(node) == {"eth1"}, "from_nic there")


def on_nics(node: AgentNode) -> set[str]:
    """The devices that from_nic stands on."""
    return {name for program, name in node.attached() if program.label == "from_nic"}


def peers_use(node: AgentNode, name: str) -> bool:
    """Whether all peers are sent to through a device."""
    with node.maps() as maps:
        return {found.ifindex for found in maps.peers().values()} == {index(node, name)}
