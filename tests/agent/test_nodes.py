# SPDX-License-Identifier: Apache-2.0
"""The agent follows its file of nodes, and never lets a bad one take the network down."""

from __future__ import annotations

import signal
import time
from ipaddress import IPv4Network

import pytest
from agentnode import AgentNode, eventually, mac, make_pod

from vxlane.agent.pace import MOST_PER_SECOND

NODE9 = IPv4Network("10.42.9.0/24")


def test_a_change_is_in_the_map_within_a_tenth_of_a_second(running: AgentNode) -> None:
    """A node that joins is known to kernel and programs at once, and forgotten as fast.

    The quickest of five counts: what the others wait for is other tests' work.
    """
    took = []
    for _ in range(5):
        time.sleep(0.3)
        running.write_nodes(2, 3, 9)
        began = time.monotonic()
        eventually(lambda: "10.42.9.0/24" in running.peers(), "node9")
        took.append(time.monotonic() - began)
        assert "10.42.9.0/24" in running.sh("ip route")
        time.sleep(0.3)
        running.write_nodes(2, 3)
        eventually(lambda: "10.42.9.0/24" not in running.peers(), "its end")
        assert "10.42.9.0" not in running.sh("ip route; ip neigh; bridge fdb")
    assert min(took) < 0.1


def test_a_peer_that_changes_leaves_nothing_behind(running: AgentNode) -> None:
    """New MAC, address and pod CIDR replace the old ones in every table."""
    before = running.kernel_path()
    running.write_nodes(2, 3, 9)
    eventually(lambda: "10.42.9.0/24" in running.peers(), "the peer")
    changed = "address: 192.168.77.99, podCIDR: 10.42.99.0/24, vtepMAC: '02:00:00:00:09:09'"
    running.write_nodes(2, 3, extra=f"  - {{name: node9, {changed}}}")
    eventually(lambda: "10.42.99.0/24" in running.peers(), "the new CIDR")
    shown = running.sh("ip route; ip neigh; bridge fdb")
    assert "10.42.99.0/24 via 10.42.99.0 dev flannel.1 onlink" in shown
    assert "02:00:00:00:09:09 dev flannel.1 dst 192.168.77.99" in shown
    assert mac(9) not in shown
    assert "10.42.9.0" not in shown
    with running.maps() as maps:
        peer = maps.peers()[IPv4Network("10.42.99.0/24")]
    assert (str(peer.address), peer.vtep_mac) == ("192.168.77.99", "02:00:00:00:09:09")
    running.write_nodes(2, 3)
    eventually(lambda: running.kernel_path() == before, "the old state")


def test_two_peers_swap_their_macs_and_cidrs(running: AgentNode) -> None:
    """What one peer gives up and another takes is neither lost nor doubled."""
    two = f"name: node2, address: 192.168.77.2, podCIDR: 10.42.3.0/24, vtepMAC: '{mac(3)}'"
    three = f"name: node3, address: 192.168.77.3, podCIDR: 10.42.2.0/24, vtepMAC: '{mac(2)}'"
    before = running.kernel_path()
    running.write_nodes(extra=f"  - {{{two}}}\n  - {{{three}}}")
    swapped = f"{mac(3)} dst 192.168.77.2 self permanent"
    eventually(lambda: swapped in running.kernel_path()["fdb"], "swap")
    path = running.kernel_path()
    assert path["neighbours"] == [f"10.42.{n}.0 lladdr {mac(n)} PERMANENT " for n in (2, 3)]
    assert path["fdb"] == sorted(
        [f"{mac(3)} dst 192.168.77.2 self permanent", f"{mac(2)} dst 192.168.77.3 self permanent"]
    )
    running.write_nodes(2, 3)
    eventually(lambda: running.kernel_path() == before, "the old state")


def test_this_node_itself_may_change(node: AgentNode) -> None:
    """Our own new pod CIDR, MAC and address change device, rules, subnet.env and programs."""
    node.start()
    node.sh("ip addr add 192.168.77.111/24 dev eth0")
    text = node.nodes_file.read_text()
    own = "address: 192.168.77.111, podCIDR: 10.42.11.0/24, vtepMAC: '02:00:00:00:11:11'"
    node.nodes_file.write_text(text.replace("address: 192.168.77.1, podCIDR: 10.42.1.0/24", own))
    eventually(lambda: "10.42.11.1/24" in node.subnet_file.read_text(), "subnet.env")
    path = node.kernel_path()
    assert path["link"]["linkinfo"]["info_data"]["local"] == "192.168.77.111"
    assert path["link"]["address"] == "02:00:00:00:11:11"
    assert path["addresses"][2:] == ["10.42.11.0/32"]
    assert "10.42.1.0" not in str(path)
    assert "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink " in path["routes"]
    eventually(lambda: node.status()["vtep_mac"] == "02:00:00:00:11:11", "status")
    with node.maps() as maps:
        settings = maps.settings()
    assert (str(settings.address), settings.vtep_mac) == ("192.168.77.111", "02:00:00:00:11:11")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "  - {name: node9, address: 192.168.77.9, podCIDR: 10.42.2.0/25}",
            "overlaps 10.42.2.0/24",
        ),
        ("  - {name: node9, address: 192.168.77.9, podCIDR: 10.42.9.0/33}", "not an IPv4 network"),
        ("  - {name: node9, address: 192.168.77.9, podCIDR: 10.42.9.0/24, vtepMAC: x}", "MAC 'x'"),
        ("  - {name: node9, address: 192.168.77.9}", "podCIDR is missing"),
    ],
    ids=["overlap", "cidr", "mac", "missing"],
)
def test_a_bad_entry_is_reported_by_name(running: AgentNode, line: str, reason: str) -> None:
    """A bad entry is a problem of its node in status and log, and every other node stays."""
    before = running.kernel_path()
    running.write_nodes(2, 3, extra=line)
    eventually(lambda: any(reason in p for p in running.status()["problems"]), reason)
    [problem] = running.status()["problems"]
    assert problem.startswith("node node9: ")
    assert running.kernel_path() == before
    running.write_nodes(2, 3)
    eventually(lambda: running.status()["problems"] == [], "mended")


@pytest.mark.parametrize(
    "content",
    ["nodes: [", "nodes:\n  - {name: node2, address: 192.168.77.2, podCIDR: 10.42.2.0/24}\n"],
    ids=["broken", "own-missing"],
)
def test_a_file_that_cant_be_used_changes_nothing(running: AgentNode, content: str) -> None:
    """A broken file, or one without this node, is an error in status and log; the nodes stay."""
    before = running.kernel_path()
    running.nodes_file.write_text(content)
    eventually(lambda: running.status()["source_error"] is not None, "the error")
    assert str(running.nodes_file) in running.status()["source_error"]
    assert str(running.nodes_file) in running.log()
    assert running.kernel_path() == before
    running.write_nodes(2, 3)
    eventually(lambda: running.status()["source_error"] is None, "mended")


def test_peers_that_vanish_all_at_once_are_held(running: AgentNode) -> None:
    """A list that is suddenly empty but for this node does not take the cluster down."""
    before = running.kernel_path()
    running.write_nodes()
    eventually(lambda: "vanished at once" in str(running.status()["problems"]), "the report")
    assert running.kernel_path() == before
    assert running.peers() == {"10.42.2.0/24", "10.42.3.0/24"}
    running.write_nodes(2, 3)
    eventually(lambda: running.status()["problems"] == [], "their return")


def test_a_start_without_a_source_goes_by_the_last_nodes(node: AgentNode) -> None:
    """An agent whose source is down at its start serves and repairs what it knew before."""
    node.start()
    before = node.kernel_path()
    node.stop(signal.SIGKILL)
    node.nodes_file.unlink()
    node.sh("ip route del 10.42.2.0/24")
    node.start()
    assert node.kernel_path() == before
    assert "No such file" in node.status()["source_error"]
    assert node.peers() == {"10.42.2.0/24", "10.42.3.0/24"}
    node.write_nodes(2, 3, 9)
    eventually(lambda: "10.42.9.0/24" in node.peers(), "the source's return")


def test_a_renamed_nodes_old_object_shares_its_entries(running: AgentNode) -> None:
    """Two objects with one address and MAC share the FDB entry, until both are gone."""
    twin = '  - {{name: old4, address: 192.168.77.4, podCIDR: 10.42.9.0/24, vtepMAC: "{}"}}'
    fdb = f"{mac(4)} dst 192.168.77.4"
    running.write_nodes(2, 3, 4, extra=twin.format(mac(4)))
    eventually(lambda: "10.42.9.0/24 via 10.42.9.0" in running.sh("ip route"), "the old object")
    assert "10.42.4.0/24 via 10.42.4.0" in running.sh("ip route")
    running.write_nodes(2, 3, 4)
    eventually(lambda: "10.42.9.0" not in running.sh("ip route; ip neigh"), "its end")
    assert fdb in running.sh("bridge fdb show dev flannel.1")
    running.write_nodes(2, 3)
    eventually(lambda: fdb not in running.sh("bridge fdb show dev flannel.1"), "the end of both")


def test_many_changes_are_few_reconciles(running: AgentNode) -> None:
    """500 changes in a row are absorbed in a few reconciles a second, and none is missed."""
    before, began = running.status()["reconciles"], time.monotonic()
    for number in range(500):
        running.write_nodes(2, 3, *range(4, 5 + number % 7))
        time.sleep(0.001)
    running.write_nodes(2, 3, 9)
    eventually(lambda: running.peers() == {"10.42.2.0/24", "10.42.3.0/24", str(NODE9)}, "the last")
    # A busy machine takes some seconds to write the files.
    seconds = time.monotonic() - began
    assert running.status()["reconciles"] - before <= MOST_PER_SECOND * (seconds + 1)
    running.write_nodes(2, 3)
    eventually(lambda: len(running.peers()) == 2, "the old state")


def test_by_another_node_s_name_the_pods_keep_their_route(node: AgentNode) -> None:
    """With the name of node2 the entry of node1 has an address of this node: no route is made."""
    make_pod(node, 7)
    node.sh("ip addr add 10.42.1.1/24 dev cni0")
    node.start("--iface", "eth0", node_name="node2")
    own = "node node1: 192.168.77.1 is this node's own address"
    eventually(lambda: own in node.status()["problems"], "the report")
    assert "10.42.1.0/24 dev cni0 proto kernel" in node.sh("ip route")
    assert "10.42.3.0/24 via 10.42.3.0 dev flannel.1 onlink" in node.sh("ip route")
