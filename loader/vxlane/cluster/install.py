# SPDX-License-Identifier: Apache-2.0
"""`vxlane up` and `vxlane down`: everything onto the cluster, and everything off it again.

What is applied are the plain manifests of deploy/manifests, for mode adopt. Mode own takes
flannel's place, which is no change to make by one command.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any, TypeVar

import yaml

from vxlane.cluster.api import ClusterApi, Json
from vxlane.cluster.daemons import lacking, leave_room, progress
from vxlane.cluster.nodes import ClusterNode
from vxlane.cluster.rollout import Patience, Rollout, Say, changes, read
from vxlane.errors import ConfigError, VxlaneError
from vxlane.sources.steering import BYPASS, EVERYTHING, NOTHING, REPORT

Found = TypeVar("Found")

ADOPT, REMOVE = "adopt", "remove"
MODE = "vxlane.io/mode"
"""Of the DaemonSet's pods: the chart's mode."""
_OF_HELM = "meta.helm.sh/release-name"
_OF_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


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
        usable = [node for node in self.nodes if not node.hindrance]
        if not usable:
            reasons = ", ".join(f"{node.name}: {node.hindrance}" for node in self.nodes)
            raise ConfigError(f"no node can be accelerated: {reasons or 'there is none'}")
        objects = manifests(ADOPT, self.nodes, image)
        if there := self._api.read(daemon_set(objects)):
            _refuse_others(there)
        leave_room(daemon_set(objects), self.nodes)
        fresh = [node.name for node in self._fresh()]
        return objects, [
            f"keep the bypass off on {', '.join(fresh)} ({BYPASS}=off)" if fresh else "",
            f"apply {', '.join(map(title, objects))}",
            "wait until each node's agent has reported",
            f"switch the bypass on, node by node, and watch each for {self._patience.soak:g} s: "
            + ", ".join(node.name for node in usable),
            *(f"left out: {node.name}: {node.hindrance}" for node in self.nodes if node.hindrance),
        ]

    def up(self, objects: list[Json]) -> None:
        """Do it. VxlaneError: it stopped, and says where."""
        for node in self._fresh():
            self._ask(self._api.annotate, node.name, {BYPASS: str(NOTHING)})
        for item in objects:
            self._ask(self._api.apply, item)
            self._say(f"applied {title(item)}")
        self._wait_for_pods(daemon_set(objects))
        able = {node.name for node in self.nodes if not node.obstacle}
        self._rollout.wait_for(able, lambda node: node.is_reporting or not node.is_ready, "report")
        nodes = self._ask(read, self._api)
        self._say_left_out(nodes, "'vxlane up' again switches it on when it is")
        self._rollout.one_by_one(changes((node for node in nodes if node.is_ready), EVERYTHING))

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
        objects = manifests(REMOVE, self.nodes, image)
        leave_room(daemon_set(objects), self.nodes)
        return objects, [
            "switch the bypass off on all nodes",
            "have each node's pod take the CNI plugin, programs and maps off the node",
            f"delete {', '.join(map(title, objects))}",
            "take vxlane's annotations off the nodes",
            *(f"left out: {node.name}: it is not Ready" for node in _left_out(self.nodes)),
        ]

    def down(self, objects: list[Json]) -> None:
        """Do it. VxlaneError: it stopped, and says where."""
        planned = changes(self.nodes, NOTHING)
        self._rollout.at_once(planned, lambda node: node.follows or not node.is_ready)
        for item in objects:
            self._ask(self._api.apply, item)
        self._wait_for_pods(daemon_set(objects))
        advice = "'vxlane uninstall' and 'vxlane detach' there take off what is still on it"
        self._say_left_out(self._ask(read, self._api), advice)
        # The pods before the account and the role that they use.
        for item in reversed(objects):
            self._ask(self._api.delete, item)
            self._say(f"deleted {title(item)}")
        for node in self._ask(read, self._api):
            if node.wanted is not None or node.report:
                self._ask(self._api.annotate, node.name, {BYPASS: None, REPORT: None})

    def _ask(self, call: Callable[..., Found], *arguments: Any) -> Found:
        """See `Rollout.ask`. Every call may be made twice: what it asks for is a state."""
        return self._rollout.ask(partial(call, *arguments))

    def _fresh(self) -> list[ClusterNode]:
        """Nodes that nobody has said anything of, and on which no agent runs."""
        return [
            node
            for node in self.nodes
            if node.wanted is None and not node.is_reporting and not node.obstacle
        ]

    def _say_left_out(self, nodes: list[ClusterNode], advice: str) -> None:
        for node in _left_out(nodes):
            self._say(f"left out: {node.name}: it is not Ready; {advice}")

    def _wait_for_pods(self, wanted: Json) -> None:
        """Until the DaemonSet's pods are of this version and ready, on all nodes that are Ready.
        VxlaneError: nothing has moved for as long as an agent may take to answer.
        """
        dead = sum(not node.is_ready for node in self.nodes)
        highest, end = (-1, -1), time.monotonic() + self._patience.answer
        while True:
            found = self._ask(self._api.read, wanted) or wanted
            now = progress(found)
            if now.is_seen and now.left <= 0:
                return
            if now.height > highest:
                highest, end = now.height, time.monotonic() + self._patience.answer
            is_late = time.monotonic() > end
            # All nodes and pods are a load for the server: they are read when they may decide.
            if is_late or (now.is_seen and now.left <= dead):
                lacks = self._lacking(found)
                if now.is_seen and not lacks:
                    return
            if is_late:
                where = "; ".join(lacks) or "the cluster has not begun with this version"
                raise VxlaneError(
                    f"{now.ready} of {now.desired} pods of {title(wanted)} are ready: {where}; "
                    "see 'kubectl describe' of these"
                )
            time.sleep(self._patience.poll)

    def _lacking(self, found: Json) -> list[str]:
        nodes = self._ask(read, self._api)
        return lacking(found, nodes, self._ask(self._api.pods_of_set, found))


def _left_out(nodes: list[ClusterNode]) -> list[ClusterNode]:
    """Those that are vxlane's, and that nothing can be done on now."""
    return [node for node in nodes if not node.obstacle and not node.is_ready]


def _refuse_others(there: Json) -> None:
    metadata = there["metadata"]
    if release := (metadata.get("annotations") or {}).get(_OF_HELM):
        raise ConfigError(
            f"helm installed this as release {release}; upgrade it with helm, and remove it by "
            "'helm upgrade --set mode=remove' before 'helm uninstall'"
        )
    # Server-side apply leaves the containers that another has applied: an agent beside its removal.
    if _OF_KUBECTL in (metadata.get("annotations") or {}):
        raise ConfigError(
            "kubectl applied this; upgrade it with kubectl, and remove it by 'kubectl apply -k "
            "deploy/manifests/remove' (on k3s remove-k3s) before 'kubectl delete -k'"
        )
    mode = (there["spec"]["template"]["metadata"].get("annotations") or {}).get(MODE)
    if mode not in {ADOPT, REMOVE}:
        raise ConfigError(
            f"vxlane runs in mode {mode} and makes the nodes' network; docs/install.md says how "
            "flannel takes over again"
        )
