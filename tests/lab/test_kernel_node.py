# SPDX-License-Identifier: Apache-2.0
"""A kernel-only node shows what a node under an unmodified flanneld v0.20.2 shows."""

import json
import re

import pytest

NET = "10.42.0.0/16"
RULES = f"""\
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s {NET} -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d {NET} -m comment --comment "flanneld forward" -j ACCEPT
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {NET} -d {NET} -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {NET} ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" \
-j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {NET} -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s {NET} -d {NET} -m comment --comment "flanneld masq" \
-j MASQUERADE --random-fully
"""
DEVICE = {
    "id": 1,
    "local": "192.168.77.11",
    "link": "eth0",
    "port_range": {"low": 0, "high": 0},
    "port": 8472,
    "learning": False,
    "ageing": 300,
    "udp_csum": True,
    "udp_zero_csum6_tx": False,
    "udp_zero_csum6_rx": False,
}


@pytest.fixture
def lab(make_lab):
    """Two kernel-only nodes, a pod on each."""
    return make_lab(nodes=2, pods_per_node=1, kernel_only=2)


def test_state_is_flannels(lab):
    """Device, address, route, neighbour, FDB entry, rules and subnet.env are flanneld's own."""
    mac = lab.node("node2").vtep_mac

    def shown(*argv):
        return lab.exec("node1", *argv).stdout

    device = shown("ip", "-d", "address", "show", "flannel.1")
    assert "mtu 1450 qdisc noqueue" in device
    assert " ttl auto " in device
    # The words' order is another in newer versions of ip.
    [described] = json.loads(shown("ip", "-d", "-j", "link", "show", "flannel.1"))
    assert described["linkinfo"]["info_data"].items() >= DEVICE.items()
    assert f"link/ether {lab.node('node1').vtep_mac}" in device
    assert "inet 10.42.1.0/32 scope global flannel.1" in device
    routes = shown("ip", "route").splitlines()
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink " in routes
    assert "10.42.1.0/24 dev cni0 proto kernel scope link src 10.42.1.1 " in routes
    neighbours = shown("ip", "neigh", "show", "dev", "flannel.1")
    assert neighbours.split() == ["10.42.2.0", "lladdr", mac, "PERMANENT"]
    entries = shown("bridge", "fdb", "show", "dev", "flannel.1")
    assert entries.split() == [mac, "dst", "192.168.77.12", "self", "permanent"]
    rules = [line for line in shown("iptables-save").splitlines() if line.startswith("-A")]
    assert rules == RULES.splitlines()
    assert (lab.node("node1").directory / "subnet.env").read_text(encoding="ascii") == (
        "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\n"
        "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )


def test_bridge_and_pod_are_flannels(lab):
    """cni0 and a pod's eth0 have the MTU, addresses and routes of a pod under flannel."""
    bridge = lab.exec("node1", "ip", "address", "show", "cni0").stdout
    assert "mtu 1450" in bridge
    assert "inet 10.42.1.1/24 brd 10.42.1.255 scope global cni0" in bridge
    eth0 = lab.exec("node1-pod1", "ip", "address", "show", "eth0").stdout
    assert "mtu 1450" in eth0
    assert "inet 10.42.1.2/24" in eth0
    routes = lab.exec("node1-pod1", "ip", "route").stdout
    assert routes.splitlines() == [
        "default via 10.42.1.1 dev eth0 ",
        "10.42.0.0/16 via 10.42.1.1 dev eth0 ",
        "10.42.1.0/24 dev eth0 proto kernel scope link src 10.42.1.2 ",
    ]


def test_pods_reach_each_other(lab):
    """A ping crosses two kernel-only nodes with its TTL down by two."""
    said = lab.exec("node1-pod1", "ping", "-c", "2", "-i", "0.1", lab.address("node2-pod1")).stdout
    assert re.findall(r"ttl=(\d+)", said) == ["62", "62"]


def test_the_wire_carries_vxlan(lab):
    """On the underlay the ping is a VXLAN packet, UDP 8472 and VNI 1, with an inner echo."""
    command = ["tcpdump", "-c", "2", "-nvi", "br0", "udp", "port", "8472"]
    with lab.spawn("switch", *command, stdout=-1, stderr=-1) as capture:
        assert "listening on br0" in capture.stderr.readline()
        lab.exec("node1-pod1", "ping", "-c", "1", lab.address("node2-pod1"))
        said, _ = capture.communicate(timeout=10)
    # OTV, by port 8472, in older versions of tcpdump; the header is the same.
    assert re.search(r"(VXLAN|OTV), flags \[I\] \(0x08\).*(vni|instance) 1\n", said)
    assert "10.42.1.2 > 10.42.2.2: ICMP echo request" in said
