# SPDX-License-Identifier: Apache-2.0
"""What is waited for when vxlane comes onto a cluster and leaves it, and in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from apiserver import make_node
from clusterserver import said

from vxlane.cluster.install import Installation
from vxlane.cluster.rollout import Patience, Rollout, changes, read
from vxlane.errors import VxlaneError
from vxlane.sources.steering import BYPASS, NOTHING, REPORT

WHOLE = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2}
SEEN = {**WHOLE, "observedGeneration": 2}
LOOK = "look at DaemonSet"


class Cluster:
    """Two nodes, and a DaemonSet of generation 2 with another status at each look; the last one
    stays. `done` is all that was asked for, in order. A node has an agent if it has a report.
    """

    def __init__(self, *statuses: Mapping[str, int], **wanted: str | None) -> None:
        self.statuses = list(statuses or [SEEN])
        self.done: list[str] = []
        self.things = {thing["metadata"]["name"]: thing for thing in map(make_node, (1, 2))}
        for name, word in wanted.items():
            self.annotate(name.replace("_", "-"), {BYPASS: word, REPORT: ""})
        self.done.clear()

    def nodes(self) -> list[Any]:
        """See `ClusterApi`."""
        return list(self.things.values())

    def node(self, name: str) -> Any:
        """See `ClusterApi`."""
        return self.things[name]

    def pods_of(self, _: str) -> list[Any]:
        """See `ClusterApi`."""
        return []

    def annotate(self, node: str, annotations: Mapping[str, str | None]) -> None:
        """See `ClusterApi`; the agent follows."""
        found = self.things[node]["metadata"]["annotations"]
        has_agent = REPORT in found or annotations.get(REPORT) is not None
        found |= annotations
        self.done.append(f"{node} {found[BYPASS]}")
        found |= {REPORT: json.dumps(said(found[BYPASS] or "on"))} if has_agent else {}
        self.things[node]["metadata"]["annotations"] = {k: v for k, v in found.items() if v}

    def read(self, thing: Any) -> Any:
        """See `ClusterApi`."""
        self.done.append(f"look at {thing['kind']}")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return thing | {"metadata": {**thing["metadata"], "generation": 2}, "status": status}

    def apply(self, thing: Any) -> None:
        """See `ClusterApi`."""
        self.done.append(f"apply {thing['kind']}")

    def delete(self, thing: Any) -> None:
        """See `ClusterApi`."""
        self.done.append(f"delete {thing['kind']}")

    def installation(self, *, answer: float = 60.0) -> Installation:
        """Of vxlane on this cluster."""
        api: Any = self
        return Installation(api, patience=Patience(0.0, 0.0, answer), say=lambda _: None)


UNSEEN, OLD_PODS, STARTING = (
    {**WHOLE, "observedGeneration": 1},
    {**SEEN, "updatedNumberScheduled": 1},
    {**SEEN, "numberReady": 1},
)


def test_no_node_is_switched_on_before_its_pod_is_new_and_ready() -> None:
    """The status may be of the DaemonSet before, and count pods of the version before."""
    cluster = Cluster(SEEN, UNSEEN, OLD_PODS, STARTING, SEEN, node_00001="off", node_00002="25%")
    installation = cluster.installation()
    objects, _ = installation.plan_up("")
    installation.up(objects)
    assert cluster.done[-7:] == ["apply DaemonSet", *[LOOK] * 4, "node-00001 on", "node-00002 on"]


@pytest.mark.parametrize("status", [UNSEEN, OLD_PODS, STARTING])
def test_pods_that_do_not_come_end_it(status: Mapping[str, int]) -> None:
    """Up switches nothing on; down deletes nothing, since a node may not be clean."""
    cluster = Cluster(status, node_00001="off", node_00002="off")
    installation = cluster.installation(answer=0.0)
    for objects, act in (
        (installation.plan_up("")[0], installation.up),
        (installation.plan_down()[0], installation.down),
    ):
        with pytest.raises(VxlaneError, match="of 2 pods of DaemonSet kube-system/vxlane are rea"):
            act(objects)
    assert {step.partition(" ")[0] for step in cluster.done} == {"look", "apply"}


def test_agents_that_do_not_report_are_named() -> None:
    """A pod may be ready, and its agent unable to tell of itself: nothing is switched on."""
    cluster = Cluster()
    installation = cluster.installation(answer=0.0)
    with pytest.raises(VxlaneError, match="don't report: node-00001, node-00002"):
        installation.up(installation.plan_up("")[0])
    assert "node-00001 on" not in cluster.done


def test_a_new_version_takes_the_bypass_from_no_node() -> None:
    """Only nodes that nobody has said anything of, and that have no agent, begin with off."""
    cluster = Cluster(node_00001=None)
    installation = cluster.installation(answer=0.0)
    with pytest.raises(VxlaneError, match="don't report: node-00002"):
        installation.up(installation.plan_up("")[0])
    assert [step for step in cluster.done if step.startswith("node")] == ["node-00002 off"]


def test_down_deletes_pods_before_what_they_run_by() -> None:
    """And all that behind the bypass's end and the nodes' clean-up."""
    cluster = Cluster(node_00001=None, node_00002="25%")
    installation = cluster.installation()
    installation.down(installation.plan_down()[0])
    kinds = ["DaemonSet", "ClusterRoleBinding", "ClusterRole", "ServiceAccount"]
    assert cluster.done == [
        LOOK,
        *("node-00001 off", "node-00002 off"),
        *(f"apply {kind}" for kind in reversed(kinds)),
        LOOK,
        *(f"delete {kind}" for kind in kinds),
        *("node-00001 None", "node-00002 None"),
    ]


def test_an_agent_that_is_gone_is_not_waited_for() -> None:
    """Its node is switched off all the same."""
    cluster: Any = Cluster(node_00001="on")
    rollout = Rollout(cluster, Patience(0.0, 0.0, 0.0), lambda _: None)
    rollout.at_once(changes(read(cluster), NOTHING, ["node-00001", "node-00002"]))
    assert cluster.done == ["node-00001 off", "node-00002 off"]
