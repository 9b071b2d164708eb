# SPDX-License-Identifier: Apache-2.0
"""How far a DaemonSet's pods are, where the nodes that are not Ready are left out. Pure.

Its counters count such nodes, since its pods tolerate them, and their pods never become ready.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vxlane.cluster.nodes import ClusterNode, Json, is_ready

GENERATION, POD_GENERATION = "deprecated.daemonset.template.generation", "pod-template-generation"
"""The annotation that counts a DaemonSet's templates, and the label by which a pod has it. The
controller still goes by them: IsPodUpdated in its util/daemonset_util.go.
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a DaemonSet's status counts."""

    is_seen: bool
    """Whether it is of this version; the other fields may be of the one before."""
    desired: int
    updated: int
    ready: int

    @property
    def left(self) -> int:
        """Pods that are not new, or not ready."""
        return self.desired - min(self.updated, self.ready)

    @property
    def height(self) -> tuple[int, int]:
        """What rises as long as something is done. While pods are replaced, those that are ready
        fall and rise again; only more of the new ones are further.
        """
        return (self.updated, self.ready) if self.is_seen else (-1, -1)


def progress(daemons: Json) -> Progress:
    """Of a DaemonSet as the cluster has it."""
    status = daemons.get("status") or {}
    return Progress(
        status.get("observedGeneration") == daemons["metadata"].get("generation", 0),
        status.get("desiredNumberScheduled", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberReady", 0),
    )


def lacking(daemons: Json, nodes: Iterable[ClusterNode], pods: Iterable[Json]) -> list[str]:
    """What its pods lack, node by node, in words; empty: they are new and ready on all nodes that
    are Ready.
    """
    selector = daemons["spec"]["template"]["spec"].get("nodeSelector") or {}
    chosen = [node for node in nodes if selector.items() <= node.labels.items()]
    if len(chosen) < (desired := progress(daemons).desired):
        return [f"{len(chosen)} nodes have the labels {selector}, and {desired} are to have a pod"]
    there = {str(pod["spec"].get("nodeName")): pod for pod in pods if _is_new(pod, daemons)}
    found = []
    for node in chosen:
        pod = there.get(node.name)
        if node.is_ready and pod is None:
            found.append(f"{node.name}: no new pod")
        elif node.is_ready and pod and not is_ready(pod.get("status") or {}):
            found.append(f"{node.name}: pod {pod['metadata']['name']} is not ready")
    return found


def leave_room(daemons: Json, nodes: list[ClusterNode]) -> None:
    """Let pods be replaced although some nodes are not Ready. Kubernetes counts these into how many
    pods may be amiss at a time, so one such node could stop it on all others.
    """
    dead = sum(not node.is_ready for node in nodes)
    limits = daemons["spec"]["updateStrategy"]["rollingUpdate"]
    # One of the two limits is 0, and must stay so.
    for key, limit in limits.items():
        if dead and limit:
            share = str(limit).partition("%")
            own = math.ceil(len(nodes) * int(share[0]) / 100) if share[1] else int(limit)
            limits[key] = own + dead


def _is_new(pod: Json, daemons: Json) -> bool:
    """Whether the DaemonSet, and not one of that name before it, has made this pod, of its present
    template, and keeps it.
    """
    metadata, of_set = pod["metadata"], daemons["metadata"]
    wanted = (of_set.get("annotations") or {}).get(GENERATION)
    owners = {owner.get("uid") for owner in metadata.get("ownerReferences") or ()}
    return (
        wanted is not None
        and (metadata.get("labels") or {}).get(POD_GENERATION) == wanted
        and of_set.get("uid") in owners
        and not metadata.get("deletionTimestamp")
    )
