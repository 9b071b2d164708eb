# SPDX-License-Identifier: Apache-2.0
"""Whether a node is worse than it was before its bypass was switched. Pure.

What is compared is what its users would notice: the node, its agent, and whether its pods are ready
and stay up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vxlane.cluster.nodes import ClusterNode, is_ready


@dataclass(frozen=True, slots=True)
class Health:
    """One node at one moment."""

    node: ClusterNode
    pods: int
    """That should be ready: those that have not ended, and are not being deleted."""
    ready: int
    restarts: int
    """Of all their containers, those of other pods too."""
    uids: frozenset[object]
    """The pods'."""


def health_of(
    node: ClusterNode, pods: Iterable[Mapping[str, Any]], before: Health | None = None
) -> Health:
    """The health of a node with these Pod objects. Those that were not there `before` need not be
    ready: they start, as a Job's or a replaced one.
    """
    expected = ready = restarts = 0
    uids = set[object]()
    for pod in pods:
        status = pod.get("status") or {}
        metadata = pod.get("metadata") or {}
        if metadata.get("deletionTimestamp") or status.get("phase") in {"Succeeded", "Failed"}:
            continue
        containers = status.get("containerStatuses") or ()
        restarts += sum(int(each.get("restartCount") or 0) for each in containers)
        uid = metadata.get("uid")
        if before is None or uid in before.uids:
            uids.add(uid)
            expected += 1
            ready += is_ready(status)
    return Health(node, expected, ready, restarts, frozenset(uids))


def worse(before: Health, now: Health) -> list[str]:
    """What is worse `now`, in whole words; empty: nothing."""
    found = []
    if before.node.is_ready and not now.node.is_ready:
        found.append("the node is not Ready any more")
    if not now.node.is_reporting:
        found.append("its agent does not report")
    elif before.node.report.get("ready") and not now.node.report.get("ready"):
        found.append("its agent is not ready any more")
    for what in ("failures", "problems"):
        was, is_now = (health.node.report.get(what, 0) for health in (before, now))
        if is_now > was:
            trouble = now.node.report.get("trouble") or "see vxlane status there"
            found.append(f"its agent has {is_now} {what}, {was} before: {trouble}")
    lost = (before.pods - before.ready, now.pods - now.ready)
    if lost[1] > lost[0]:
        found.append(f"{lost[1]} of {now.pods} pods are not ready, {lost[0]} before")
    # Pods that went took their restarts with them: only a rise tells something.
    if now.restarts > before.restarts:
        found.append(f"containers have restarted {now.restarts - before.restarts} times")
    return found


def summary(now: Health) -> str:
    """What a person compares."""
    share, packets = now.node.report.get("share"), now.node.report.get("packets") or 0
    traffic = f"{share:.0%} of {packets} packets bypassed" if share is not None else "no traffic"
    return f"{traffic}, {now.ready} of {now.pods} pods ready"
