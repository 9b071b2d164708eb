# SPDX-License-Identifier: Apache-2.0
"""This node gets another pod CIDR: the bridge's old address must not keep new pods out."""

from __future__ import annotations

from agentnode import AgentNode, eventually, make_pod


def move(node: AgentNode, cidr: str) -> None:
    """Give node1 the pod CIDR `cidr` in the file of nodes."""
    node.write_nodes(2, 3)
    text = node.nodes_file.read_text()
    node.nodes_file.write_text(text.replace("podCIDR: 10.42.1.0/24", f"podCIDR: {cidr}"))


def bridge(node: AgentNode) -> str:
    """The addresses of cni0."""
    return node.sh("ip -br -4 addr show cni0")


def test_an_empty_bridge_is_put_right(node: AgentNode) -> None:
    """Without pods the old address goes; an address outside the pods' network stays."""
    node.start()
    node.sh(
        "ip link add cni0 type bridge; ip link set cni0 up",
        "ip addr add 10.42.1.1/24 dev cni0; ip addr add 172.20.0.1/24 dev cni0",
    )
    move(node, "10.42.7.0/24")
    eventually(lambda: "10.42.1.1" not in bridge(node), "the end of the old address")
    assert "172.20.0.1/24" in bridge(node)
    wanted = "FLANNEL_SUBNET=10.42.7.1/24"
    eventually(lambda: wanted in node.subnet_file.read_text(), "the new subnet")
    assert node.status()["problems"] == []


def test_a_bridge_with_pods_is_reported(node: AgentNode) -> None:
    """With pods the address stays, and problems have the command that mends it."""
    node.start()
    make_pod(node, 7)
    node.sh("ip addr add 10.42.1.1/24 dev cni0")
    move(node, "10.42.7.0/24")
    eventually(lambda: len(node.status()["problems"]) == 1, "the report")
    assert "10.42.1.1/24" in bridge(node)
    _, _, command = node.status()["problems"][0].partition("then: ")
    assert command == "ip addr del 10.42.1.1/24 dev cni0"
    node.sh(command)
    eventually(lambda: node.status()["problems"] == [], "the end of the report")
