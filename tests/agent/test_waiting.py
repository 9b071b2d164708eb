# SPDX-License-Identifier: Apache-2.0
"""What a node tells whose agent waits, or has none."""

from __future__ import annotations

import json
from typing import Any

from agentnode import AgentNode

from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for


def shown(node: AgentNode, *options: str) -> tuple[int, str]:
    """Exit status and output of `vxlane status`."""
    env = {"VXLANE_STATE_DIR": str(node.state)}
    command = [program("vxlane"), "status", *options]
    done = namespaces.run(node.netns, *command, check=False, env=env)
    assert not done.stderr
    return done.returncode, done.stdout


def test_a_waiting_agent_says_for_what(node: AgentNode) -> None:
    """Without a source the agent waits for etcd where flanneld would, and status says so."""
    node.start(nodes=False, wait=False)

    def waiting() -> dict[str, Any] | None:
        document: dict[str, Any] = json.loads(shown(node, "--json")[1])["agent"]
        return document if document.get("waiting_for") else None

    agent = wait_for(waiting, "the agent that waits", seconds=10)
    assert node.process
    assert (agent["ready"], agent["pid"]) == (False, node.process.pid)
    for endpoint in ("http://127.0.0.1:4001", "http://127.0.0.1:2379"):
        assert f"{endpoint}: connection refused" in agent["waiting_for"]
    status, text = shown(node)
    assert status == 1
    assert "waiting for  http://127.0.0.1:4001: connection refused" in text
    assert "no programs are pinned" in text
    assert node.log().count("not started yet") == 1


def test_the_word_of_a_dead_agent_does_not_count(node: AgentNode) -> None:
    """An agent that waited and was killed is told as none, not as one that waits."""
    node.start(nodes=False, wait=False)
    wait_for(lambda: "waiting" in shown(node)[1], "the agent that waits", seconds=10)
    node.stop(9)
    status, text = shown(node)
    assert status == 1
    assert "no agent listens" in text
    assert "waiting" not in text


def test_an_agent_without_an_entry_says_so(node: AgentNode) -> None:
    """A started agent that its source does not know yet tells what it waits for, by the socket."""
    node.start(wait=False, node_name="nobody")
    said = wait_for(lambda: "this node" in shown(node)[1], "the agent's word", seconds=10)
    assert said
    agent = json.loads(shown(node, "--json")[1])["agent"]
    assert "node 'nobody': is this node" in agent["waiting_for"]
    assert agent["ready"] is False
