# SPDX-License-Identifier: Apache-2.0
"""The lab's real agents: one `vxlane agent` process per node, fed by a file of nodes.

Owns how an agent is started and awaited. Its processes belong to the node's namespace only, so they
outlive the command that started them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from vxlane.agent import sole
from vxlane.errors import LabError
from vxlane.lab import namespaces
from vxlane.lab.plan import POD_NETWORK, LabNode
from vxlane.lab.waiting import wait_for
from vxlane.util import files
from vxlane.util.places import STATE_VARIABLE

READY_SECONDS = 30.0
"""From exec to ready. Most of it is the compiler, and the machine may be busy."""


def program(name: str) -> str:
    """A console script of the environment that this process runs in."""
    return str(Path(sys.executable).with_name(name))


def write_nodes(file: Path, nodes: Iterable[LabNode]) -> None:
    """The file of nodes that the agents read."""
    document = {
        "network": str(POD_NETWORK),
        "nodes": [
            {
                "name": node.name,
                "address": str(node.address),
                "podCIDR": str(node.pod_cidr),
                "vtepMAC": node.vtep_mac,
            }
            for node in nodes
        ],
    }
    files.replace(file, json.dumps(document, indent=2))


def start(node: LabNode, nodes: Path, options: Iterable[str] = ()) -> None:
    """Start the agent of `node`; `await_ready` waits for it."""
    ready = node.directory / "ready"
    ready.unlink(missing_ok=True)
    agent = [program("vxlane"), "agent", "--nodes-file", str(nodes), "--node-name", node.name]
    agent += ["--iface", "eth0", "--ip-masq", "--subnet-file", str(node.directory / "subnet.env")]
    agent += ["--ready-file", str(ready), *options]
    env = {STATE_VARIABLE: str(node.directory)}
    namespaces.start(node.name, *agent, log=_log(node), env=env)


def await_ready(node: LabNode) -> None:
    """Wait until the agent of `node` has set up the node. LabError: it ended or hangs."""
    ready = node.directory / "ready"

    def is_ready() -> bool:
        alive = bool(namespaces.pids(node.name))
        if not ready.exists() and not alive:
            raise LabError(f"the agent of {node.name} ended: {_last_words(node)}")
        return ready.exists()

    wait_for(is_ready, f"agent of {node.name}, see {_log(node)}", seconds=READY_SECONDS)


def pid(node: LabNode) -> int | None:
    """The agent's process, if it lives."""
    return sole.holder(node.directory)


def _last_words(node: LabNode) -> str:
    log = _log(node)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return f"{lines[-1]} ({log})" if lines else "it said nothing"


def _log(node: LabNode) -> Path:
    return node.directory / "agent.log"
