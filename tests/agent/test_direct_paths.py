# SPDX-License-Identifier: Apache-2.0
"""Other ways for packets than flannel's default: plain routes, nftables, net-conf.json's keys."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from agentnode import BY_EVENTS, AgentNode, eventually

FAR = "  - {name: node9, address: 172.16.0.9, podCIDR: 10.42.9.0/24}"


def net_conf(tmp_path: Path, **content: Any) -> tuple[str, str]:
    """The option for a net-conf.json of that content."""
    file = tmp_path / "net-conf.json"
    file.write_text(json.dumps({"Network": "10.42.0.0/16"} | content))
    return "--net-config-path", str(file)


def test_direct_routing_routes_to_neighbours(node: AgentNode, tmp_path: Path) -> None:
    """With DirectRouting a peer on our link has a plain route, one behind a router a tunnel."""
    node.sh("ip route add 172.16.0.0/24 via 192.168.77.254")
    node.write_nodes(2, 3, extra=FAR)
    node.start(*net_conf(tmp_path, Backend={"type": "VXLAN", "directrouting": True}))
    routes = node.sh("ip route")
    assert "10.42.2.0/24 via 192.168.77.2 dev eth0 \n" in routes
    assert "10.42.9.0/24 via 10.42.9.0 dev flannel.1 onlink" in routes
    assert len(node.kernel_path()["fdb"]) == 1
    with node.maps() as maps:
        ways = {str(cidr): peer.way.name for cidr, peer in maps.peers().items()}
        assert maps.settings().has_direct
    assert ways == {"10.42.2.0/24": "DIRECT", "10.42.3.0/24": "DIRECT", "10.42.9.0/24": "TUNNEL"}
    assert ("to_nic", "eth0") in {(p.label, device) for p, device in node.attached()}
    node.sh("ip route del 10.42.2.0/24")
    eventually(lambda: "10.42.2.0/24 via 192.168.77.2" in node.sh("ip route"), "the repair")


@pytest.mark.parametrize("router", ["192.168.77.254", "inet6 fe80::1"])
def test_a_peer_that_moves_behind_a_router_gets_a_tunnel(
    node: AgentNode, tmp_path: Path, router: str
) -> None:
    """The way to a peer is decided by the routes of now, and the other way's entries go."""
    node.sh("ip addr add 172.16.0.1/24 dev eth0")
    node.write_nodes(2, 3, extra=FAR)
    node.start(*net_conf(tmp_path, Backend={"Type": "vxlan", "DirectRouting": True}))
    assert "10.42.9.0/24 via 172.16.0.9 dev eth0" in node.sh("ip route")
    node.sh("ip addr del 172.16.0.1/24 dev eth0")
    node.sh(f"ip route add 172.16.0.0/24 via {router} dev eth0")
    tunnel = "10.42.9.0/24 via 10.42.9.0 dev flannel.1 onlink"
    eventually(lambda: tunnel in node.sh("ip route"), "the tunnel")
    node.sh("ip route del 172.16.0.0/24; ip addr add 172.16.0.1/24 dev eth0")
    eventually(lambda: "10.42.9.0/24 via 172.16.0.9 dev eth0" in node.sh("ip route"), "the route")
    eventually(lambda: "10.42.9.0" not in node.sh("ip neigh; bridge fdb"), "the rest's end")


def test_host_gw_has_no_device(node: AgentNode, tmp_path: Path) -> None:
    """The host-gw backend is plain routes, no device, and pods with the NIC's whole MTU."""
    node.write_nodes(2, 3, extra=FAR)
    node.start(*net_conf(tmp_path, Backend={"Type": "host-gw"}))
    assert "flannel.1" not in node.sh("ip link")
    assert "10.42.2.0/24 via 192.168.77.2 dev eth0 \n" in node.sh("ip route")
    assert "FLANNEL_MTU=1500" in node.subnet_file.read_text()
    with node.maps() as maps:
        assert {peer.way.name for peer in maps.peers().values()} == {"DIRECT"}
    assert "node node9: " in "\n".join(node.status()["problems"])
    node.detach("--network")
    assert "10.42." not in node.sh("ip route")


@pytest.mark.parametrize("backend", [{"Type": "host-gw"}, {"Type": "vxlan", "DirectRouting": True}])
def test_routes_that_went_with_an_address_come_back_with_it(
    node: AgentNode, tmp_path: Path, backend: dict[str, object]
) -> None:
    """As a DHCP client does that starts again. The kernel tells of no route that goes so."""
    node.start(*net_conf(tmp_path, Backend=backend))
    before = node.sh("ip route")
    assert "10.42.2.0/24 via 192.168.77.2 dev eth0" in before
    node.sh("ip addr flush dev eth0; ip addr add 192.168.77.1/24 dev eth0")
    eventually(lambda: node.sh("ip route") == before, "the routes")


def test_the_keys_of_net_conf_count_in_any_case(node: AgentNode, tmp_path: Path) -> None:
    """VNI, port and MTU come from net-conf.json; 50 bytes are taken off its MTU."""
    backend = {"type": "vxlan", "vni": 7, "PORT": 4789, "mtu": 1400, "gbp": True}
    node.start(*net_conf(tmp_path, Backend=backend), wait=False)
    eventually(node.subnet_file.exists, "subnet.env", seconds=10)
    link = node.link("flannel.7")
    data = link["linkinfo"]["info_data"]
    assert (link["mtu"], data["id"], data["port"]) == (1350, 7, 4789)
    assert "gbp" in data
    assert "FLANNEL_MTU=1350" in node.subnet_file.read_text()


def test_rules_in_nftables_form(node: AgentNode, tmp_path: Path) -> None:
    """EnableNFTables writes one table, repairs it, and removes the rules that iptables has."""
    node.start(wait=False)
    eventually(lambda: "FLANNEL-POSTRTG" in node.sh("iptables-save"), "iptables rules", seconds=10)
    node.stop()
    conf = net_conf(tmp_path, EnableNFTables=True, Backend={"Type": "vxlan"})
    node.start(BY_EVENTS, *conf)
    assert "FLANNEL" not in node.sh("iptables-save")
    table = node.sh("nft list table ip flannel-ipv4")
    assert "ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random" in table
    assert "ip daddr 10.42.0.0/16 accept" in table
    node.sh("nft flush chain ip flannel-ipv4 postrtg")
    eventually(lambda: node.sh("nft list table ip flannel-ipv4") == table, "the repair")
    node.detach("--network")
    assert "flannel" not in node.sh("nft list ruleset")


def test_rules_that_nobody_tells_of(node: AgentNode, tmp_path: Path) -> None:
    """iptables-legacy has no events: its rules are looked at every --iptables-resync seconds."""
    for name in ("iptables", "iptables-restore"):
        legacy = name.replace("iptables", "iptables-legacy")
        (tmp_path / name).symlink_to(str(shutil.which(legacy)))
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    node.start("--iptables-resync=0.5", env=path)
    wanted = node.sh("iptables-legacy -w -S FLANNEL-FWD")
    for _ in range(2):
        node.sh("iptables-legacy -w -F FLANNEL-FWD")
        eventually(lambda: node.sh("iptables-legacy -w -S FLANNEL-FWD") == wanted, "the repair")


def test_rules_can_be_left_out(node: AgentNode) -> None:
    """Without --ip-masq and with --iptables-forward-rules=false there are no rules at all."""
    node.start("--ip-masq=false", "-iptables-forward-rules=false", wait=False)
    eventually(node.subnet_file.exists, "subnet.env", seconds=10)
    assert "FLANNEL" not in node.sh("iptables-save")
    assert "FLANNEL_IPMASQ=false" in node.subnet_file.read_text()


def test_a_blackhole_swallows_what_no_pod_has(node: AgentNode) -> None:
    """With --ip-blackhole-route our pod CIDR has such a route, kept, and gone after detach."""
    node.start("-ip-blackhole-route", wait=False)
    eventually(lambda: "blackhole 10.42.1.0/24" in node.sh("ip route"), "the route", seconds=10)
    node.sh("ip route del blackhole 10.42.1.0/24")
    eventually(lambda: "blackhole 10.42.1.0/24" in node.sh("ip route"), "the repair", seconds=10)
    eventually(node.is_ready, "ready", seconds=20)
    node.detach("--network")
    assert "blackhole" not in node.sh("ip route")
