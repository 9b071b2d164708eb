# SPDX-License-Identifier: Apache-2.0
"""`vxlane up` and `vxlane down`: everything onto the cluster, and everything off it again.

What is applied are the plain manifests of deploy/manifests, for mode adopt. Mode own takes
flannel's place, which is no change to make by one command.
"""

from __future__ import annotations

import time
from importlib import resources

import yaml

from vxlane.cluster.api import ClusterApi, Json
from vxlane.cluster.nodes import ClusterNode
from vxlane.cluster.rollout import Patience, Rollout, Say, changes, read
from vxlane.errors import ConfigError, VxlaneError
from vxlane.sources.steering import BYPASS, EVERYTHING, NOTHING, REPORT

ADOPT, REMOVE = "adopt", "remove"
MODE = "vxlane.io/mode"
"""Of the DaemonSet's pods: the chart's mode."""
_OF_HELM = "meta.helm.sh/release-name"


def manifests(mode: str, nodes: list[ClusterNode], image: str = "") -> list[Json]:
    """The objects to apply on such nodes, with `image` in place of their own if given."""
    is_k3s = any("+k3s" in node.kubelet for node in nodes)
    folder = f"{mode}-k3s" if is_k3s else mode
    text = resources.files("vxlane.cluster").joinpath(f"manifests/{folder}/vxlane.yaml")
    objects = [item for item in yaml.safe_load_all(text.read_text(encoding="utf-8")) if item]
    if image:
        pod = daemon_set(objects)["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            container["image"] = image
    return objects


def daemon_set(objects: list[Json]) -> Json:
    """The DaemonSet among `objects`."""
    (found,) = (item for item in objects if item["kind"] == "DaemonSet")
    return found


def title(item: Json) -> str:
    """An object by kind and name."""
    metadata = item["metadata"]
    return f"{item['kind']} " + "/".join(
        metadata[key] for key in ("namespace", "name") if key in metadata
    )


class Installation:
    """vxlane on one cluster."""

    def __init__(self, api: ClusterApi, *, patience: Patience, say: Say) -> None:
        self._api = api
        self._patience = patience
        self._say = say
        self._rollout = Rollout(api, patience, say)
        self.nodes = read(api)

    def plan_up(self, image: str) -> tuple[list[Json], list[str]]:
        """The objects to apply, and what will be done in words. ConfigError: it can't be."""
        usable = [node for node in self.nodes if not node.obstacle]
        if not usable:
            reasons = ", ".join(f"{node.name}: {node.obstacle}" for node in self.nodes)
            raise ConfigError(f"no node can be accelerated: {reasons or 'there is none'}")
        objects = manifests(ADOPT, self.nodes, image)
        if there := self._api.read(daemon_set(objects)):
            _refuse_others(there)
        fresh = [node.name for node in self._fresh()]
        return objects, [
            f"keep the bypass off on {', '.join(fresh)} ({BYPASS}=off)" if fresh else "",
            f"apply {', '.join(map(title, objects))}",
            "wait until each node's agent has reported",
            f"switch the bypass on, node by node, and watch each for {self._patience.soak:g} s: "
            + ", ".join(node.name for node in usable),
            *(f"left out: {node.name}: {node.obstacle}" for node in self.nodes if node.obstacle),
        ]

    def up(self, objects: list[Json]) -> None:
        """Do it. VxlaneError: it stopped, and says where."""
        for node in self._fresh():
            self._api.annotate(node.name, {BYPASS: str(NOTHING)})
        for item in objects:
            self._api.apply(item)
            self._say(f"applied {title(item)}")
        self._wait_for_pods(daemon_set(objects))
        usable = {node.name for node in self.nodes if not node.obstacle}
        self._rollout.wait_for(usable, lambda node: node.is_reporting, "report")
        self._rollout.one_by_one(changes(read(self._api), EVERYTHING))

    def plan_down(self) -> tuple[list[Json], list[str]]:
        """The objects that remove all, and what will be done in words. ConfigError: it can't be."""
        objects = manifests(REMOVE, self.nodes)
        there = self._api.read(daemon_set(objects))
        if there is None:
            raise ConfigError(
                f"{title(daemon_set(objects))} is not there, so there is nothing to remove"
            )
        _refuse_others(there)
        image = there["spec"]["template"]["spec"]["containers"][0]["image"]
        return manifests(REMOVE, self.nodes, image), [
            "switch the bypass off on all nodes",
            "have each node's pod take the CNI plugin, programs and maps off the node",
            f"delete {', '.join(map(title, objects))}",
            "take vxlane's annotations off the nodes",
        ]

    def down(self, objects: list[Json]) -> None:
        """Do it. VxlaneError: it stopped, and says where."""
        self._rollout.at_once(changes(self.nodes, NOTHING))
        for item in objects:
            self._api.apply(item)
        self._wait_for_pods(daemon_set(objects))
        # The pods before the account and the role that they use.
        for item in reversed(objects):
            self._api.delete(item)
            self._say(f"deleted {title(item)}")
        for node in read(self._api):
            if node.wanted is not None or node.report:
                self._api.annotate(node.name, {BYPASS: None, REPORT: None})

    def _fresh(self) -> list[ClusterNode]:
        """Nodes that nobody has said anything of, and on which no agent runs."""
        return [
            node
            for node in self.nodes
            if node.wanted is None and not node.report and not node.obstacle
        ]

    def _wait_for_pods(self, wanted: Json) -> None:
        """Until each pod of the DaemonSet is of this version, and ready."""
        end = time.monotonic() + self._patience.answer * max(1, len(self.nodes))
        while True:
            found = self._api.read(wanted) or wanted
            status = found.get("status") or {}
            desired = status.get("desiredNumberScheduled", 0)
            is_seen = status.get("observedGeneration") == found["metadata"].get("generation", 0)
            counted = ("updatedNumberScheduled", "numberReady")
            if is_seen and all(status.get(count, 0) >= desired for count in counted):
                return
            if time.monotonic() > end:
                raise VxlaneError(
                    f"{status.get('numberReady', 0)} of {desired} pods of {title(wanted)} are "
                    "ready; see 'kubectl describe' of the others"
                )
            time.sleep(self._patience.poll)


def _refuse_others(there: Json) -> None:
    metadata = there["metadata"]
    if release := (metadata.get("annotations") or {}).get(_OF_HELM):
        raise ConfigError(
            f"helm installed this as release {release}; upgrade it with helm, and remove it by "
            "'helm upgrade --set mode=remove' before 'helm uninstall'"
        )
    mode = (there["spec"]["template"]["metadata"].get("annotations") or {}).get(MODE)
    if mode not in {ADOPT, REMOVE}:
        raise ConfigError(
            f"vxlane runs in mode {mode} and makes the nodes' network; docs/install.md says how "
            "flannel takes over again"
        )
