# SPDX-License-Identifier: Apache-2.0
"""Mode `adopt`: flanneld's overlay is read, accelerated, and never written."""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from agentnode import AgentNode, eventually, mac

from vxlane.datapath.abi import Program

FLANNELD = f"""
ip link add flannel.1 address {mac(1)} mtu 1450 type vxlan id 1 dev eth0 local 192.168.77.1 \
    dstport 8472 nolearning
ip link set flannel.1 addrgenmode none
ip addr add 10.42.1.0/32 dev flannel.1; ip link set flannel.1 up
"""


def peer(number: int) -> str:
    """What flanneld writes for node `number`."""
    return f"""
ip neigh replace 10.42.{number}.0 lladdr {mac(number)} dev flannel.1 nud permanent
bridge fdb replace {mac(number)} dev flannel.1 dst 192.168.77.{number} self permanent
ip route replace 10.42.{number}.0/24 via 10.42.{number}.0 dev flannel.1 onlink
"""


def known(node: AgentNode) -> dict[str, tuple[str, str]]:
    """What the programs know of peers: pod CIDR -> address, MAC."""
    with node.maps() as maps:
        return {str(c): (str(p.address), p.vtep_mac) for c, p in maps.peers().items()}


def test_nothing_of_flannelds_is_touched(node: AgentNode) -> None:
    """The kernel path, the rules and subnet.env are after a start what they were before it."""
    node.sh(FLANNELD, peer(2), peer(3))
    before, index = node.kernel_path(), node.link("flannel.1")["ifindex"]
    with node.watch("neigh", "route", "address") as seen:
        node.start(mode="adopt")
    assert node.kernel_path() == before
    assert node.link("flannel.1")["ifindex"] == index
    assert [line for line in seen if "flannel.1" in line] == []
    assert not node.subnet_file.exists()
    assert known(node) == {f"10.42.{n}.0/24": (f"192.168.77.{n}", mac(n)) for n in (2, 3)}
    assert {program.label for program, _ in node.attached()} == {"from_nic", "to_nic"}


def test_the_kernel_wins_over_the_list(node: AgentNode) -> None:
    """Where kernel and list differ the kernel is followed, and the difference reported by name."""
    node.sh(FLANNELD, peer(2), peer(3))
    node.sh(f"bridge fdb replace {mac(2)} dev flannel.1 dst 192.168.77.22 self permanent")
    node.write_nodes(2, 3, 4)
    node.start(mode="adopt")
    assert known(node)["10.42.2.0/24"] == ("192.168.77.22", mac(2))
    problems = "\n".join(node.status()["problems"])
    assert "node node2: the kernel sends to" in problems
    assert "node node4: the kernel has no entries yet" in problems
    assert "node3" not in problems


def test_flannelds_changes_are_followed(node: AgentNode) -> None:
    """Peers that flanneld adds, changes and removes are added, changed and removed in the map."""
    node.sh(FLANNELD, peer(2))
    node.write_nodes(2, 3)
    node.start(mode="adopt")
    node.sh(peer(3))
    eventually(lambda: "10.42.3.0/24" in known(node), "the new peer")
    node.sh(f"bridge fdb replace {mac(3)} dev flannel.1 dst 192.168.77.33 self permanent")
    eventually(lambda: known(node)["10.42.3.0/24"][0] == "192.168.77.33", "its move")
    node.sh("ip route del 10.42.3.0/24")
    eventually(lambda: "10.42.3.0/24" not in known(node), "its end")
    node.sh("ip route replace 10.42.2.0/24 dev eth0 proto static")
    eventually(lambda: known(node) == {}, "the end of one whose place was taken")


def test_a_device_that_flanneld_makes_later_or_anew_is_found(node: AgentNode) -> None:
    """Without flannel.1 the agent waits and says so; it follows the device when it comes."""
    node.start(mode="adopt", wait=False)
    eventually(lambda: "no VXLAN device flannel.1 to adopt" in node.log(), "the report")
    node.sh(FLANNELD, peer(2))
    eventually(node.is_ready, "ready", seconds=15)
    eventually(lambda: list(known(node)) == ["10.42.2.0/24"], "its peer")
    node.sh("ip link del flannel.1", FLANNELD, peer(3))
    eventually(lambda: list(known(node)) == ["10.42.3.0/24"], "the new device")
    hooks = {(Program.FROM_NIC, "eth0"), (Program.TO_NIC, "eth0")}
    eventually(lambda: node.attached() == hooks, "the programs on its NIC")


def test_no_list_is_needed(node: AgentNode) -> None:
    """Without any source the kernel's own entries say who the peers are."""
    node.sh(FLANNELD, peer(2), peer(3))
    node.nodes_file.unlink()
    node.start(mode="adopt", nodes=False)
    assert set(known(node)) == {"10.42.2.0/24", "10.42.3.0/24"}
    assert node.status()["problems"] == []


def test_flannelds_direct_routes_are_direct_peers(node: AgentNode) -> None:
    """A plain route to a peer's address, flannel's DirectRouting, needs no tunnel in the map."""
    node.sh(FLANNELD, peer(2), "ip route add 10.42.3.0/24 via 192.168.77.3 dev eth0")
    node.start(mode="adopt")
    with node.maps() as maps:
        peers = maps.peers()
        assert maps.settings().has_direct
    assert peers[IPv4Network("10.42.2.0/24")].way.name == "TUNNEL"
    assert peers[IPv4Network("10.42.3.0/24")].way.name == "DIRECT"
    assert peers[IPv4Network("10.42.3.0/24")].mtu == 1500


def test_detach_leaves_flannelds_overlay(node: AgentNode) -> None:
    """After detach flanneld's overlay is what it was, and no program is left."""
    node.sh(FLANNELD, peer(2))
    before = node.kernel_path()
    node.start(mode="adopt")
    node.detach("--network")
    assert node.kernel_path() == before
    assert node.attached() == set()


def test_own_takes_over_what_was_adopted(node: AgentNode) -> None:
    """From adopt to own and back nothing on the kernel path is made anew."""
    node.sh(FLANNELD, peer(2), peer(3))
    index = node.link("flannel.1")["ifindex"]
    node.start(mode="adopt")
    entries = {key: node.kernel_path()[key] for key in ("routes", "neighbours", "fdb")}
    for mode in ("own", "adopt"):
        node.stop()
        node.start(mode=mode)
        path = node.kernel_path()
        assert {key: path[key] for key in entries} == entries
        assert node.link("flannel.1")["ifindex"] == index
    assert json.loads(node.sh("ip -j route show 10.42.2.0/24"))
