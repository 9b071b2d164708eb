# SPDX-License-Identifier: Apache-2.0
"""Whatever someone else changes on the kernel path comes back as it was, and the log says why."""

from __future__ import annotations

import json
import time

import pytest
from agentnode import AgentNode, eventually, mac, make_pod

from vxlane.datapath.abi import Program
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.records import IPAddress

ELSEWHERE = "type vxlan id 1 dev eth0 local 192.168.77.1 dstport 4789 nolearning"
DAMAGES = {
    "route-deleted": ("ip route del 10.42.2.0/24", "put route 10.42.2.0/24"),
    "route-replaced": (
        "ip route replace 10.42.2.0/24 via 192.168.77.9 dev eth0",
        "was route 10.42.2.0/24 via 192.168.77.9 dev eth0",
    ),
    "neighbour-deleted": ("ip neigh del 10.42.2.0 dev flannel.1", "put neighbour 10.42.2.0"),
    "neighbour-changed": (
        "ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
        "was neighbour 10.42.2.0 lladdr 02:00:00:00:00:99",
    ),
    "fdb-deleted": (f"bridge fdb del {mac(2)} dev flannel.1", f"put fdb {mac(2)}"),
    "fdb-changed": (
        f"bridge fdb replace {mac(2)} dev flannel.1 dst 192.168.77.99 self permanent",
        f"was fdb {mac(2)} dst 192.168.77.99",
    ),
    "stale-route": (
        "ip route add 10.42.9.0/24 via 10.42.9.0 dev flannel.1 onlink",
        "remove route 10.42.9.0/24",
    ),
    "stale-neighbour": (
        "ip neigh add 10.42.9.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
        "remove neighbour 10.42.9.0",
    ),
    "stale-fdb": (
        "bridge fdb add 02:00:00:00:00:99 dev flannel.1 dst 192.168.77.9 self permanent",
        "remove fdb 02:00:00:00:00:99",
    ),
    "device-deleted": ("ip link del flannel.1", "add device flannel.1"),
    "device-down": ("ip link set flannel.1 down", "set device flannel.1 up"),
    "device-mac": (
        "ip link set flannel.1 address 02:00:00:00:00:77",
        f"set MAC of flannel.1 to {mac(1)}: was 02:00:00:00:00:77",
    ),
    "device-mtu": ("ip link set flannel.1 mtu 1400", "set MTU of flannel.1 to 1450: was 1400"),
    "device-address": (
        "ip addr add 10.42.7.1/32 dev flannel.1",
        "remove address 10.42.7.1/32 of flannel.1",
    ),
    "device-no-address": (
        "ip addr del 10.42.1.0/32 dev flannel.1",
        "add address 10.42.1.0/32 to flannel.1",
    ),
    "device-other-wiring": (
        f"ip link del flannel.1; ip link add flannel.1 {ELSEWHERE}",
        "remove device flannel.1: its port is 4789, not 8472",
    ),
    "masquerade-jump": ("iptables -t nat -F POSTROUTING", "FLANNEL-POSTRTG of table nat: 0 jumps"),
    "masquerade-rule": (
        "iptables -t nat -D FLANNEL-POSTRTG 2",
        "FLANNEL-POSTRTG of table nat: its rules differed",
    ),
    "forward-chain": (
        "iptables -F FORWARD; iptables -F FLANNEL-FWD; iptables -X FLANNEL-FWD",
        # "missing"; or "0 jumps", when the agent had listed the chain just before.
        "put iptables chain FLANNEL-FWD of table filter: ",
    ),
}


@pytest.mark.parametrize(("damage", "logged"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_repaired(running: AgentNode, damage: str, logged: str) -> None:
    """After the damage the kernel path is again what it was, and one log line names the cause."""
    before, said = running.kernel_path(), len(running.log())
    with running.halted():
        running.sh(damage)
    eventually(lambda: logged in running.log()[said:], f"{logged!r} in the log")
    eventually(lambda: running.kernel_path() == before, "repair")


def test_programs_follow_a_nic_made_anew(running: AgentNode) -> None:
    """A NIC that vanishes, and flannel.1 with it, is followed to the next of its name."""
    hooks = {(Program.FROM_NIC, "eth0"), (Program.TO_NIC, "eth0")}
    before = running.link("flannel.1")["ifindex"]
    assert running.attached() == hooks
    running.sh("ip link del eth0")
    eventually(lambda: not running.attached(), "the end of the hooks")
    running.sh(
        "ip link add eth0 type veth peer name wire0",
        "ip addr add 192.168.77.1/24 dev eth0",
        "ip link set eth0 up; ip link set wire0 up",
    )
    eventually(lambda: running.attached() == hooks, "the hooks")
    eventually(lambda: running.link("flannel.1")["ifindex"] != before, "the device")
    nic = running.link("eth0")["ifindex"]
    with running.maps() as maps:
        eventually(lambda: {p.ifindex for p in maps.peers().values()} == {nic}, "the peers")


def test_ones_own_changes_are_no_news(running: AgentNode) -> None:
    """A quiet node stays quiet: each entry is written once, and none while nothing changes."""
    said = len(running.log())
    running.write_nodes(2, 3, 4)
    eventually(lambda: "put route 10.42.4.0/24" in running.log()[said:], "the new peer")
    running.write_nodes(2, 3)
    eventually(lambda: "remove route 10.42.4.0/24" in running.log()[said:], "its removal")
    time.sleep(1)
    lines = [line for line in running.log()[said:].splitlines() if " put " in line]
    assert len([line for line in lines if "10.42.4.0" in line]) == 3  # route, neighbour, map
    assert len(lines) == 4  # the FDB's entry is by the MAC
    assert json.loads(running.sh("ip -j route show 10.42.4.0/24")) == []


def test_what_nobody_tells_of_is_found_on_the_round(node: AgentNode) -> None:
    """A map entry, a link of a program and a pod that vanish without an event come back."""
    node.start()
    node.ask(**make_pod(node, 7))
    with node.maps() as maps:
        [first, *_] = maps.peers()
        maps.delete_peer(first)
        [pod] = maps.pods()
        maps.delete_pod(pod)
    for pin in pin_directory(node.state).glob("link-from_nic-*"):
        pin.unlink()
    node.sh("sysctl -q net.netfilter.nf_conntrack_tcp_be_liberal=0")
    eventually(lambda: len(node.peers()) == 2, "the peer", seconds=50)
    eventually(lambda: pod in pods(node), "the pod", seconds=5)
    eventually(lambda: (Program.FROM_NIC, "eth0") in node.attached(), "the hook", seconds=5)
    assert node.sh("sysctl -n net.netfilter.nf_conntrack_tcp_be_liberal").strip() == "1"


def pods(node: AgentNode) -> set[IPAddress]:
    """Addresses of pods in the map."""
    with node.maps() as maps:
        return set(maps.pods())
