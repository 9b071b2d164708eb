# SPDX-License-Identifier: Apache-2.0
"""A choice of the underlay that can't be made any more cuts no peer off."""

from __future__ import annotations

from pathlib import Path

import pytest
from agentnode import AgentNode, eventually

CHOICES = {
    "renamed": ("--iface=eth0", "ip link set eth0 down; ip link set eth0 name lan0 up"),
    "unreachable": ("--iface-can-reach=203.0.113.9", "ip route del 203.0.113.9"),
}


@pytest.mark.parametrize(("option", "damage"), CHOICES.values(), ids=CHOICES.keys())
def test_peers_are_programmed_all_the_same(node: AgentNode, option: str, damage: str) -> None:
    """Peers that come later have routes, while the agent runs and after a restart."""
    node.sh("ip route add 203.0.113.9 via 192.168.77.254")
    node.start(option)
    node.sh(damage)
    node.write_nodes(2, 3, 4)
    route = "10.42.4.0/24 via 10.42.4.0 dev flannel.1 onlink"
    eventually(lambda: route in node.sh("ip route"), "a new peer", seconds=20)
    assert node.status()["failures"] == []
    node.stop()
    node.start(option)
    node.write_nodes(2, 3, 4, 5)
    eventually(lambda: "10.42.5.0/24" in node.sh("ip route"), "another one", seconds=20)
    status = node.status()
    assert (status["address"], status["failures"]) == ("192.168.77.1", [])
    assert "192.168.77.1, which peers know, stays" in str(status["problems"])


def test_behind_a_nat_the_tunnel_has_the_interfaces_own_address(node: AgentNode) -> None:
    """Peers know the address of --public-ip, and this node's packets leave with that of eth0."""
    lines = node.nodes_file.read_text().replace("192.168.77.1,", "203.0.113.5,")
    node.nodes_file.write_text(lines)
    node.start("--iface=eth0", "--public-ip=203.0.113.5")
    assert node.link("flannel.1")["linkinfo"]["info_data"]["local"] == "192.168.77.1"
    with node.maps() as maps:
        assert str(maps.settings().address) == "192.168.77.1"
        assert all(peer.ifindex for peer in maps.peers().values())
    assert node.status()["problems"] == []


def test_an_mtu_that_the_interface_does_not_have_cuts_no_peer_off(
    node: AgentNode, tmp_path: Path
) -> None:
    """A tunnel that is narrower than the network's configuration serves, and follows its NIC."""
    config = tmp_path / "net-conf.json"
    config.write_text('{"Network":"10.42.0.0/16","Backend":{"Type":"vxlan","MTU":9000}}')
    node.start(f"--net-config-path={config}")
    assert "eth0 has MTU 1500, and the network's is 9000" in str(node.status()["problems"])
    node.sh("ip link set wire0 mtu 9000; ip link set eth0 mtu 9000")
    eventually(lambda: node.link("flannel.1")["mtu"] == 8950, "the network's MTU")
    eventually(lambda: node.status()["problems"] == [], "no problem")
    node.sh("ip link set eth0 mtu 1500; ip link del flannel.1")
    eventually(lambda: "10.42.2.0/24 via" in node.sh("ip route"), "the tunnel")
    assert "FLANNEL_MTU=1450" in node.subnet_file.read_text()
