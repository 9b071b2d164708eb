# SPDX-License-Identifier: Apache-2.0
"""What is waited for when vxlane comes onto a cluster and leaves it, and in which order."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from apiserver import make_node
from clusterserver import daemon_pod, said

from vxlane.cluster.daemons import GENERATION
from vxlane.cluster.install import Installation, daemon_set
from vxlane.cluster.rollout import Patience, Rollout, changes, read
from vxlane.errors import ConfigError, SourceError, VxlaneError
from vxlane.sources.http import HttpError
from vxlane.sources.steering import BYPASS, NOTHING, REPORT

WHOLE = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2}
SEEN = {**WHOLE, "observedGeneration": 2}
LOOK = "look at DaemonSet"
BUSY = HttpError("https://api/x", 503, words="busy")


class Cluster:
    """Two nodes, and a DaemonSet of generation 2 with another status at each look; the last one
    stays. `done` is all that was asked for, in order. A node has an agent if it has a report.
    """

    def __init__(self, *statuses: Mapping[str, int], **wanted: str | None) -> None:
        self.statuses = list(statuses or [SEEN])
        self.done: list[str] = []
        self.things = {thing["metadata"]["name"]: thing for thing in map(make_node, (1, 2))}
        for thing in self.things.values():
            thing["metadata"]["labels"] = {"kubernetes.io/os": "linux"}
        self.pods: list[Any] = []
        self.told: list[str] = []
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

    def pods_of_set(self, _: Any) -> list[Any]:
        """See `ClusterApi`."""
        self.done.append("look at pods")
        return self.pods

    def die(self, node: str) -> None:
        """Kubelet says nothing any more."""
        self.things[node]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]

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
        more = {"generation": 2, "uid": "u", "annotations": {GENERATION: "7"}}
        return thing | {"metadata": {**thing["metadata"], **more}, "status": status}

    def apply(self, thing: Any) -> None:
        """See `ClusterApi`."""
        self.done.append(f"apply {thing['kind']}")

    def delete(self, thing: Any) -> None:
        """See `ClusterApi`."""
        self.done.append(f"delete {thing['kind']}")

    def installation(self, *, answer: float = 60.0) -> Installation:
        """Of vxlane on this cluster."""
        api: Any = self
        return Installation(api, patience=Patience(0.0, 0.0, answer), say=self.told.append)


def stutter(cluster: Cluster, fault: Exception) -> None:
    """From now on each call fails at first, and works when it is made again."""

    def stuttering(call: Callable[..., Any]) -> Callable[..., Any]:
        fails = itertools.cycle((True, False))

        def made(*arguments: Any) -> Any:
            if next(fails):
                raise fault
            return call(*arguments)

        return made

    for name in ("nodes", "node", "annotate", "read", "apply", "delete", "pods_of_set"):
        setattr(cluster, name, stuttering(getattr(cluster, name)))


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


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("fault", [BUSY, SourceError("timed out")], ids=str)
def test_no_step_ends_at_a_call_that_fails(way: str, fault: Exception) -> None:
    """Once it is begun, each call is made again, and all is done that was to be done."""
    done = []
    for faults in ([], [fault]):
        cluster = Cluster()
        for thing in cluster.things.values():
            thing["metadata"]["annotations"][REPORT] = "{}"  # Its agent has not reported yet.
        installation = cluster.installation()
        if way == "up":
            objects, _ = installation.plan_up("")
        else:
            objects, _ = installation.plan_down()
        for each in faults:
            stutter(cluster, each)
        getattr(installation, way)(objects)
        done.append(cluster.done)
    assert done[0] == done[1]


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_what_the_server_refuses_is_not_asked_again(status: int) -> None:
    """A person's rights do not come by waiting, nor does an object get valid."""
    cluster = Cluster()
    installation = cluster.installation()
    objects, _ = installation.plan_up("")
    stutter(cluster, HttpError("https://api/x", status, words="no"))
    with pytest.raises(HttpError, match=f"answered {status}"):
        installation.up(objects)


@pytest.mark.parametrize("status", [UNSEEN, OLD_PODS, STARTING])
def test_pods_that_do_not_come_end_it(status: Mapping[str, int]) -> None:
    """Up switches nothing on; down deletes nothing, since a node may not be clean."""
    cluster = Cluster(status, node_00001="off", node_00002="off")
    installation = cluster.installation(answer=0.0)
    for objects, act in (
        (installation.plan_up("")[0], installation.up),
        (installation.plan_down()[0], installation.down),
    ):
        with pytest.raises(VxlaneError) as caught:
            act(objects)
        assert "of 2 pods of DaemonSet kube-system/vxlane are ready: node-00001: no new pod; " in (
            str(caught.value)
        )
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


HALF = {**SEEN, "updatedNumberScheduled": 1, "numberReady": 1}
NEW, OLD = daemon_pod("node-00001"), daemon_pod("node-00001", generation="6")


def dead_cluster(*statuses: Mapping[str, int]) -> Cluster:
    """node-00002 is not Ready, and its agent has reported a minute ago."""
    cluster = Cluster(*(statuses or (HALF,)), node_00001="off", node_00002="25%")
    cluster.die("node-00002")
    cluster.pods = [NEW]
    return cluster


def test_up_leaves_out_what_is_not_ready() -> None:
    """Neither its pod nor its report is waited for, and it is not switched."""
    cluster = dead_cluster()
    del cluster.things["node-00002"]["metadata"]["annotations"][REPORT]
    installation = cluster.installation()
    objects, plan = installation.plan_up("")
    assert plan[-1] == "left out: node-00002: it is not Ready"
    assert plan[-2].endswith("watch each for 0 s: node-00001")
    installation.up(objects)
    assert cluster.done[-4:] == ["apply DaemonSet", LOOK, "look at pods", "node-00001 on"]
    assert (
        "left out: node-00002: it is not Ready; 'vxlane up' again switches it on when it is"
    ) in cluster.told


def test_up_refuses_a_cluster_without_a_node_that_is_ready() -> None:
    """Nothing could be done on it."""
    cluster = dead_cluster()
    cluster.die("node-00001")
    with pytest.raises(ConfigError, match="node-00001: it is not Ready, node-00002: it is not"):
        cluster.installation().plan_up("")


def test_down_leaves_out_what_is_not_ready() -> None:
    """Its agent does not follow and its pod does not come; what is on it is named."""
    cluster = dead_cluster()
    annotate = cluster.annotate

    def unheard(node: str, annotations: Mapping[str, str | None]) -> None:
        if node == "node-00001" or None in annotations.values():
            annotate(node, annotations)

    cluster.annotate = unheard  # type: ignore[method-assign]
    installation = cluster.installation()
    objects, plan = installation.plan_down()
    assert plan[-1] == "left out: node-00002: it is not Ready"
    installation.down(objects)
    assert cluster.done[-1] == "node-00002 None"
    assert "delete DaemonSet" in cluster.done
    assert (
        "left out: node-00002: it is not Ready; 'vxlane uninstall' and 'vxlane detach' there take "
        "off what is still on it"
    ) in cluster.told


@pytest.mark.parametrize("old_pods", [[], [OLD], [daemon_pod("node-00001", ready=False)]])
def test_a_dead_nodes_pod_stands_for_no_other_nodes(old_pods: list[Any]) -> None:
    """It may be new by the counters, and the pod of a node that is Ready may not."""
    cluster = dead_cluster()
    cluster.pods = [*old_pods, daemon_pod("node-00002")]
    installation = cluster.installation(answer=0.0)
    with pytest.raises(VxlaneError, match=r"1 of 2 pods of .* are ready: node-00001: "):
        installation.down(installation.plan_down()[0])
    assert "delete DaemonSet" not in cluster.done


def test_a_node_that_dies_while_it_is_waited_for_is_left_out() -> None:
    """When nothing has moved for as long as an agent may take to answer."""
    cluster = Cluster(HALF, node_00001="off", node_00002="off")
    cluster.pods = [NEW]
    installation = cluster.installation(answer=0.0)
    objects, _ = installation.plan_up("")
    cluster.die("node-00002")
    installation.up(objects)
    assert cluster.done[-1] == "node-00001 on"


def test_pods_are_waited_for_as_long_as_more_of_them_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds a look, and 15 s until it counts as over. More nodes make no difference."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda _: clock.append(clock.pop() + 10))
    counts = [(0, 2), (1, 1), (1, 1), (1, 2), (2, 1), (2, 1)]
    keys = ("updatedNumberScheduled", "numberReady")
    statuses = [SEEN | dict(zip(keys, each, strict=True)) for each in counts]
    wanted = daemon_set(Cluster().installation().plan_down()[0])
    cluster = Cluster(*statuses, SEEN)
    cluster.installation(answer=15.0)._wait_for_pods(wanted)
    assert cluster.done == [LOOK] * 7
    stuck = Cluster({**SEEN, "numberReady": 1})
    with pytest.raises(VxlaneError, match="1 of 2 pods"):
        stuck.installation(answer=15.0)._wait_for_pods(wanted)
    assert stuck.done == [*[LOOK] * 3, "look at pods"]
