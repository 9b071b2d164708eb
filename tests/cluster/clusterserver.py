# SPDX-License-Identifier: Apache-2.0
"""A cluster whose agents answer as soon as their nodes' annotations change."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from apiserver import ApiServer, make_node

from vxlane.sources.steering import BYPASS, REPORT

DAEMON_SET = "/apis/apps/v1/namespaces/kube-system/daemonsets/vxlane"


def now() -> str:
    """As an agent writes it."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(*, ready: bool = True, restarts: int = 0, uid: str = "") -> dict[str, Any]:
    """A Pod object that runs."""
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    containers = [{"restartCount": restarts}]
    status = {"phase": "Running", "conditions": [condition], "containerStatuses": containers}
    return {"metadata": {"uid": uid}, "status": status}


def daemon_pod(node: str, *, generation: str = "7", ready: bool = True, **more: Any) -> Any:
    """A Pod object of a DaemonSet with uid `u`, whose template is of this generation."""
    labels = {"pod-template-generation": generation}
    owner = {"uid": "u"}
    made = pod(ready=ready)
    made["metadata"] = {"name": f"vxlane-{node[-1]}", "labels": labels, "ownerReferences": [owner]}
    made["metadata"] |= more
    return made | {"spec": {"nodeName": node}}


class SteeredCluster(ApiServer):
    """Nodes node-00001 and on. An agent runs where the DaemonSet is, and reports at once.

    `harmed`: nodes whose pods are not ready while they are bypassed. `deaf`: nodes whose agents
    follow nothing.
    """

    def __init__(self, count: int, *, kubelet: str = "v1.33.1", kernel: str = "6.8.0-1") -> None:
        super().__init__()
        self.harmed: set[str] = set()
        self.deaf: set[str] = set()
        self.steps: list[tuple[str, str | None]] = []
        """What each node was annotated with, in order."""
        for number in range(1, count + 1):
            node = make_node(number)
            info = {"kubeletVersion": kubelet, "kernelVersion": kernel}
            node["status"]["nodeInfo"] = info
            self.put(node)

    def annotation(self, number: int, key: str = BYPASS) -> str | None:
        """Of one node."""
        found: str | None = self.nodes[f"node-{number:05}"]["metadata"]["annotations"].get(key)
        return found

    def change(self, number: int, *, report: dict[str, Any] | None = None, **more: str) -> None:
        """Set what a node's agent has said last, or other annotations."""
        node = json.loads(json.dumps(self.nodes[f"node-{number:05}"]))
        annotations = node["metadata"]["annotations"]
        if report is not None:
            annotations[REPORT] = json.dumps({"at": now(), **report})
        annotations.update(more)
        super().put(node)

    def put(self, *nodes: dict[str, Any]) -> None:
        """Add or change nodes; the agents hear of it."""
        for node in nodes:
            annotations, name = node["metadata"]["annotations"], node["metadata"]["name"]
            before = self.nodes.get(name, node)["metadata"]["annotations"].get(BYPASS)
            if annotations.get(BYPASS) != before:
                self.steps.append((name, annotations.get(BYPASS)))
            if self._mode() == "adopt" and name not in self.deaf:
                annotations[REPORT] = json.dumps(said(annotations.get(BYPASS, "on")))
        super().put(*nodes)

    def store(self, path: str, thing: dict[str, Any]) -> dict[str, Any]:
        """Apply; a DaemonSet's pods are ready at once, and their agents report."""
        super().store(path, thing)
        if thing["kind"] == "DaemonSet":
            count = len(self.nodes)
            thing["metadata"]["generation"] = 1
            counts = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
            thing["status"] = {"observedGeneration": 1, **dict.fromkeys(counts, count)}
            self.put(*json.loads(json.dumps(list(self.nodes.values()))))
        return thing

    def pods_on(self, node: str) -> list[dict[str, Any]]:
        """Two pods a node."""
        is_bypassed = self.nodes[node]["metadata"]["annotations"].get(BYPASS, "on") != "off"
        return [pod(), pod(ready=not (node in self.harmed and is_bypassed))]

    def kubeconfig(self, directory: Path) -> Path:
        """A file that leads here."""
        path = directory / "kubeconfig"
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
        }
        path.write_text(json.dumps(content))
        return path

    def _mode(self) -> str | None:
        daemons = self.objects.get(DAEMON_SET)
        if daemons is None:
            return None
        mode: str = daemons["spec"]["template"]["metadata"]["annotations"]["vxlane.io/mode"]
        return mode


def said(wish: str, **more: Any) -> dict[str, Any]:
    """What an agent that is well reports."""
    return {
        "version": "0.1.0",
        "mode": "adopt",
        "wish": wish,
        "bypass": "off" if wish == "off" else "on",
        "ready": True,
        "failures": 0,
        "problems": 0,
        "trouble": "",
        "pods": 2,
        "packets": 1000,
        "share": 0.0 if wish == "off" else 0.9,
        "at": now(),
    } | more
