# SPDX-License-Identifier: Apache-2.0
"""Which pods of a DaemonSet are waited for."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from apiserver import make_node
from clusterserver import SteeredCluster, daemon_pod

from vxlane.cluster.api import ClusterApi
from vxlane.cluster.daemons import GENERATION, lacking, leave_room, progress
from vxlane.cluster.install import ADOPT, REMOVE, daemon_set, manifests
from vxlane.cluster.nodes import ClusterNode, node_of
from vxlane.sources.kubernetes.access import Access

LINUX = {"kubernetes.io/os": "linux"}


def node(number: int, *, ready: bool = True, **labels: str) -> ClusterNode:
    """A node with Linux, if its labels don't say other things."""
    thing = make_node(number)
    thing["metadata"]["labels"] = LINUX | {key.replace("_", "/"): labels[key] for key in labels}
    if not ready:
        thing["status"]["conditions"] = []
    return node_of(thing, dt.datetime.now(dt.timezone.utc))


def the_set(desired: int = 2) -> Any:
    """As the cluster has it."""
    metadata = {"generation": 2, "uid": "u", "annotations": {GENERATION: "7"}}
    status = {"observedGeneration": 2, "desiredNumberScheduled": desired}
    template = {"spec": {"nodeSelector": LINUX}}
    return {"metadata": metadata, "spec": {"template": template}, "status": status}


@pytest.mark.parametrize(
    ("pod", "lacks"),
    [
        (daemon_pod("node-00001"), []),
        (daemon_pod("node-00001", ready=False), ["node-00001: pod vxlane-1 is not ready"]),
        (daemon_pod("node-00001", generation="6"), ["node-00001: no new pod"]),
        (daemon_pod("node-00001", deletionTimestamp="now"), ["node-00001: no new pod"]),
        (daemon_pod("node-00001", ownerReferences=[{"uid": "v"}]), ["node-00001: no new pod"]),
        (daemon_pod("node-00001", labels=None), ["node-00001: no new pod"]),
        (daemon_pod("node-00009"), ["node-00001: no new pod"]),
    ],
)
def test_each_node_that_is_ready_needs_a_new_pod(pod: Any, lacks: list[str]) -> None:
    """Made by this DaemonSet, of its present template, ready, and not being deleted."""
    nodes = [node(1), node(2, ready=False), node(3, **{"kubernetes.io_os": "windows"})]
    assert lacking(the_set(), nodes, [pod]) == lacks


def test_nodes_that_are_not_understood_are_waited_for() -> None:
    """More pods are wanted than nodes have the labels; or nothing says which pods are new."""
    assert lacking(the_set(3), [node(1), node(2)], [daemon_pod("node-00001")]) == [
        f"2 nodes have the labels {LINUX}, and 3 are to have a pod"
    ]
    unknown = the_set(1)
    del unknown["metadata"]["annotations"]
    assert lacking(unknown, [node(1)], [daemon_pod("node-00001")]) == ["node-00001: no new pod"]
    assert not progress({"metadata": {"generation": 1}}).is_seen


@pytest.mark.parametrize(
    ("mode", "dead", "limits"),
    [
        (ADOPT, 0, {"maxSurge": 1, "maxUnavailable": 0}),
        (ADOPT, 2, {"maxSurge": 3, "maxUnavailable": 0}),
        (REMOVE, 0, {"maxUnavailable": "25%"}),
        (REMOVE, 2, {"maxUnavailable": 4}),
    ],
)
def test_dead_nodes_do_not_stop_the_others_pods(
    mode: str, dead: int, limits: dict[str, int | str]
) -> None:
    """As many pods more may be amiss as nodes are dead; a quarter of five nodes are two."""
    nodes = [node(number, ready=number > dead) for number in range(1, 6)]
    made = daemon_set(manifests(mode, nodes))
    leave_room(made, nodes)
    assert made["spec"]["updateStrategy"]["rollingUpdate"] == limits


def test_pods_are_asked_for_by_the_daemon_sets_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its namespace."""
    server = SteeredCluster(1)
    server.up()
    path = "/api/v1/namespaces/kube-system/pods"
    monkeypatch.setitem(server.objects, path, {"items": [daemon_pod("node-00001")]})
    api = ClusterApi(Access(server=server.url))
    found = api.pods_of_set(daemon_set(manifests(ADOPT, [])))
    server.down()
    assert [pod["spec"]["nodeName"] for pod in found] == ["node-00001"]
    assert server.requests == [
        f"{path}?labelSelector=app.kubernetes.io%2Fname%3Dvxlane%2Capp.kubernetes.io%2Finstance%3Dvxlane"
    ]
