# SPDX-License-Identifier: Apache-2.0
"""Maps as small, or as large, as the options say, also when an agent starts again with others."""

from __future__ import annotations

from agentnode import AgentNode, eventually
from test_pods import make_pod, pods

from vxlane.datapath.records import Peer

MAC = "02:00:00:00:aa:01"
NODE2 = "  - {{name: node2, address: {address}, podCIDR: 10.42.2.0/24, vtepMAC: '" + MAC + "'}}"


def only_peer(node: AgentNode) -> Peer:
    """What the programs know of the one peer that they know."""
    with node.maps() as maps:
        [peer] = maps.peers().values()
    return peer


def test_what_does_not_fit_takes_the_kernel_path(node: AgentNode) -> None:
    """Peers and pods beyond the maps' sizes are reported, and the kernel path serves them."""
    node.start("--max-peers=1", "--max-pods", "1")
    assert len(node.peers()) == 1
    assert "map of peers is full" in "\n".join(node.status()["problems"])
    assert "10.42.3.0/24 via 10.42.3.0" in node.sh("ip route")
    assert node.ask(**make_pod(node, 7))["accelerated"]
    answer = node.ask(**make_pod(node, 8))
    assert (answer["accelerated"], "full" in answer["reason"]) == (False, True)
    assert list(pods(node)) == ["10.42.1.7"]


def test_a_peer_of_a_full_map_may_change(node: AgentNode) -> None:
    """Another MAC, and another address, which is a VTEP for a moment beside the old one."""
    node.write_nodes(2)
    node.start("--max-peers=1")
    node.write_nodes(extra=NODE2.format(address="192.168.77.2"))
    eventually(lambda: only_peer(node).vtep_mac == MAC, "the MAC")
    node.write_nodes(extra=NODE2.format(address="192.168.77.9"))
    eventually(lambda: str(only_peer(node).address) == "192.168.77.9", "the address")
    assert node.status()["failures"] == []
    assert node.status()["bypass"] == "on"


def test_sizes_may_change_from_start_to_start(node: AgentNode) -> None:
    """An agent that starts with other sizes has maps of those, filled as before."""
    node.start("--max-peers=1")
    node.ask(**make_pod(node, 7))
    node.stop()
    node.start("--max-peers=64", "--max-flows=4096")
    with node.maps() as maps:
        assert maps.capacity("peers") == 65
        assert maps.capacity("flows") == 4096
        assert len(maps.peers()) == 2
    assert list(pods(node)) == ["10.42.1.7"]
