# SPDX-License-Identifier: Apache-2.0
"""The lab's real agents: one `vxlane agent` process per node, fed by a file of nodes.

Owns how an agent is started and awaited. Its processes belong to the node's namespace only, so they
outlive the command that started them.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from vxlane.agent import sole
from vxlane.datapath import compiler
from vxlane.errors import LabError
from vxlane.lab import namespaces
from vxlane.lab.plan import LABS, POD_NETWORK, LabNode, is_namespace_of
from vxlane.lab.pods import cni_directories
from vxlane.lab.waiting import wait_for
from vxlane.runtime.cni_places import NETWORKS_VARIABLE
from vxlane.util import files
from vxlane.util.places import STATE_VARIABLE

READY_SECONDS = compiler.TIMEOUT + 30.0
"""From exec to ready. Most of it is the compiler, and that ends in its own time; an agent that ends
is noticed at once."""
_LAST_LINES = 10
_OF_AGENTS = ("FLANNELD_", "VXLANE_")
"""How the variables begin that an agent's options are read from."""


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
    # What a shell has read of the machine's agent (/etc/default/vxlane) is not meant for these.
    env = {name: os.environ[name] for name in os.environ if not name.startswith(_OF_AGENTS)}
    # An agent keeps the CNI plugin where it was installed: the machine's is not the lab's to keep.
    env |= {STATE_VARIABLE: str(node.directory), NETWORKS_VARIABLE: str(cni_directories(node)[0])}
    namespaces.start(node.name, *agent, log=_log(node), env=env)


def await_ready(node: LabNode) -> None:
    """Wait until the agent of `node` has set up the node.

    LabError: it ended or hangs. OSError: there is no room for its files; it would wait for some.
    """
    ready = node.directory / "ready"

    def is_ready() -> bool:
        alive = bool(namespaces.pids(node.name))
        if not ready.exists() and not _has_room(node.directory):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(LABS))
        if not ready.exists() and not alive:
            raise LabError("it ended")
        return ready.exists()

    try:
        wait_for(is_ready, "it is not ready", seconds=READY_SECONDS)
    except LabError as error:
        raise LabError(f"the agent of {node.name} failed: {error}; {last_words(node)}") from None


def _has_room(directory: Path) -> bool:
    """Whether a file could be written there. A file system that does not count has 0 of 0."""
    room = os.statvfs(directory)
    return bool((room.f_bavail or not room.f_blocks) and (room.f_favail or not room.f_files))


def pid(node: LabNode) -> int | None:
    """The agent's process, if it lives."""
    return sole.holder(node.directory)


def remove_kept_logs(lab: str) -> list[Path]:
    """Remove what agents that failed left behind, and return it."""
    logs = sorted(log for log in LABS.glob("*.log") if is_namespace_of(lab, log.stem))
    for log in logs:
        log.unlink(missing_ok=True)
    return logs


def last_words(node: LabNode) -> str:
    """The end of the log, and a copy that outlives the lab."""
    log, kept = _log(node), LABS / f"{node.name}.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if not text.strip():
        return "it said nothing"
    files.replace(kept, text)
    lines = [f"  {line}" for line in text.splitlines()[-_LAST_LINES:]]
    return "\n".join([f"the end of {kept}:", *lines])


def _log(node: LabNode) -> Path:
    return node.directory / "agent.log"
