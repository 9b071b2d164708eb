# SPDX-License-Identifier: Apache-2.0
"""Maps as small, or as large, as the options say, also when an agent starts again with others."""

from __future__ import annotations

from agentnode import AgentNode
from test_pods import make_pod, pods


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


def test_sizes_may_change_from_start_to_start(node: AgentNode) -> None:
    """An agent that starts with other sizes has maps of those, filled as before."""
    node.start("--max-peers=1")
    node.ask(**make_pod(node, 7))
    node.stop()
    node.start("--max-peers=64", "--max-flows=4096")
    with node.maps() as maps:
        assert maps.capacity("peers") == 64
        assert maps.capacity("flows") == 4096
        assert len(maps.peers()) == 2
    assert list(pods(node)) == ["10.42.1.7"]
