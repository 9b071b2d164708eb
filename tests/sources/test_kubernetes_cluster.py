# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes cluster steers a node by annotations, and hears its report."""

from __future__ import annotations

import copy
import json
import logging
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiserver import ApiServer, make_node
from following import QUICK, until, wait_for

from vxlane.sources.http import HttpClient
from vxlane.sources.kubernetes.api import NodesApi
from vxlane.sources.kubernetes.cluster import KubernetesCluster
from vxlane.sources.kubernetes.reporter import Pace
from vxlane.sources.kubernetes.source import KubernetesSource
from vxlane.sources.steering import BYPASS, EVERYTHING, NOTHING, REPORT, Report, Wish

NAME = "node-00000"
POD = "/api/v1/namespaces/shop/pods/web"
NAMESPACE = "/api/v1/namespaces/shop"
Follow = Callable[..., KubernetesSource]


def annotated(word: str) -> dict[str, Any]:
    """An object with the annotation."""
    return {"metadata": {"annotations": {BYPASS: word}}}


@pytest.fixture
def cluster(api: ApiServer) -> Iterator[KubernetesCluster]:
    """A cluster that is asked directly, and may be told all the time."""
    client = HttpClient([api.url], timeout=QUICK.timeout)
    pace = Pace(facts=0.05, figures=0.3)
    made = KubernetesCluster(NodesApi(client, silence=1), NAME, timing=QUICK, pace=pace)
    api.put(make_node(0))
    made.start()
    yield made
    client.close()
    made.close()


def answer(cluster: KubernetesCluster, pod: str = "shop/web") -> str:
    """What the API server's objects say of the pod, as soon as they are read."""
    until(lambda: cluster.opt_out(pod) is not None)
    reason = cluster.opt_out(pod)
    assert reason is not None
    return reason


def report(api: ApiServer) -> dict[str, Any]:
    """The node's annotation."""
    annotations = api.nodes[NAME]["metadata"]["annotations"]
    found: dict[str, Any] = json.loads(annotations.get(REPORT, "{}"))
    return found


def test_a_nodes_annotation_is_followed(
    api: ApiServer, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    """Not known before the first read; then a change is an event. A wrong word changes nothing."""
    source = follow(api, own=NAME)
    cluster = source.cluster
    assert cluster.wish() is None
    node = make_node(0)
    for word, wish in (("off", NOTHING), ("25%", Wish(25)), ("soon", Wish(25)), ("on", EVERYTHING)):
        node = copy.deepcopy(node)
        node["metadata"]["annotations"][BYPASS] = word
        api.put(node)
        wait_for(source, lambda _, wish=wish: cluster.wish() == wish)
    until(lambda: "vxlane.io/bypass 'soon' must be on, off" in caplog.text)
    assert select.select([cluster.changed], [], [], 0)[0]
    cluster.on_event()
    assert not select.select([cluster.changed], [], [], 0)[0]
    source.close()
    assert cluster.changed == -1


@pytest.mark.parametrize(
    ("pod", "namespace", "reason"),
    [
        ("off", "on", "its annotation vxlane.io/bypass says off"),
        ("on", "off", ""),
        ("", "off", "the annotation vxlane.io/bypass of namespace shop says off"),
        ("", "", ""),
    ],
)
def test_a_pods_own_word_comes_before_its_namespaces(
    api: ApiServer, cluster: KubernetesCluster, pod: str, namespace: str, reason: str
) -> None:
    """Without either the pod may be bypassed."""
    api.objects = {POD: annotated(pod), NAMESPACE: annotated(namespace)}
    assert answer(cluster) == reason
    assert select.select([cluster.changed], [], [], 0)[0]


def test_a_namespace_is_asked_for_once_for_its_pods(
    api: ApiServer, cluster: KubernetesCluster
) -> None:
    """A Deployment's pods come by the dozen."""
    api.objects = {POD: annotated(""), f"{POD}2": annotated(""), NAMESPACE: annotated("off")}
    assert answer(cluster) == answer(cluster, "shop/web2") != ""
    assert api.requests.count(NAMESPACE) == 1


def test_a_role_that_may_not_read_namespaces_is_enough(
    api: ApiServer, cluster: KubernetesCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """With flannel's older role the pods' annotations count; that others don't is told once."""
    caplog.set_level(logging.INFO)
    api.objects = {POD: annotated(""), f"{POD}2": annotated("off"), NAMESPACE: 403}
    assert answer(cluster) == ""
    assert answer(cluster, "shop/web2") != ""
    assert caplog.text.count("annotations of namespaces do not count") == 1


def test_a_pod_that_is_not_known_there_is_not_opted_out(
    api: ApiServer, cluster: KubernetesCluster
) -> None:
    """It is gone, or no pod of this cluster; a name that is no pod's is not asked for."""
    assert answer(cluster, "shop/gone") == ""
    api.requests.clear()
    assert (cluster.opt_out(""), cluster.opt_out("a-container")) == ("", "")
    assert api.requests == []


@pytest.mark.parametrize("status", [500, 401, 403])
def test_a_server_that_fails_is_asked_again(
    api: ApiServer, cluster: KubernetesCluster, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Until then the answer is not known, so the pod stays on the kernel path, which is told once.
    A token may have expired, and a server that starts knows no roles.
    """
    api.objects = {POD: status}
    assert cluster.opt_out("shop/web") is None
    until(lambda: api.requests.count(POD) > 3)
    assert cluster.opt_out("shop/web") is None
    assert caplog.text.count("stay on the kernel path") == 1
    api.objects[POD] = annotated("off")
    assert answer(cluster) == "its annotation vxlane.io/bypass says off"


def test_a_namespace_without_credentials_is_asked_again(
    api: ApiServer, cluster: KubernetesCluster
) -> None:
    """401 does not say that the role lacks namespaces."""
    api.objects = {POD: annotated(""), NAMESPACE: 401}
    assert cluster.opt_out("shop/web") is None
    until(lambda: api.requests.count(NAMESPACE) > 1)
    assert cluster.opt_out("shop/web") is None
    api.objects[NAMESPACE] = annotated("off")
    assert answer(cluster) != ""


def test_a_pod_that_may_not_be_read_holds_up_no_other(
    api: ApiServer, cluster: KubernetesCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """That pods may not be read is told once. A refused pod that is forgotten is not asked for."""
    api.objects = {POD: 403, f"{POD}2": 403}
    for pod in ("shop/web", "shop/web2"):
        assert cluster.opt_out(pod) is None
    until(lambda: min(api.requests.count(path) for path in api.objects) > 1)
    assert answer(cluster, "shop/gone") == ""
    assert caplog.text.count("pods stay on the kernel path while we may not read them") == 1
    cluster.forget("shop/web")
    api.objects[f"{POD}2"] = annotated("off")
    assert answer(cluster, "shop/web2") != ""
    asked = api.requests.count(POD)
    time.sleep(2 * QUICK.longest)
    assert api.requests.count(POD) == asked


def test_another_pod_of_a_name_is_asked_for_anew(
    api: ApiServer, cluster: KubernetesCluster
) -> None:
    """A StatefulSet gives a name again; each pod is asked for once."""
    api.objects = {POD: annotated("off")}
    assert answer(cluster) != ""
    assert answer(cluster) != ""
    assert api.requests.count(POD) == 1
    api.objects[POD] = annotated("on")
    cluster.forget("shop/web")
    assert answer(cluster) == ""


def test_a_report_is_an_annotation_by_nodes_status(
    api: ApiServer, cluster: KubernetesCluster
) -> None:
    """One patch of nodes/status with this one annotation, which flannel's role may do."""
    cluster.tell(Report({"bypass": "on"}, {"share": 0.5}))
    until(lambda: report(api))
    assert report(api).items() >= {"bypass": "on", "share": 0.5}.items()
    [(path, _, body)] = api.patches
    assert path == f"/api/v1/nodes/{NAME}/status"
    assert list(json.loads(body)["metadata"]["annotations"]) == [REPORT]


def test_figures_wait_and_facts_do_not(api: ApiServer, cluster: KubernetesCluster) -> None:
    """Every agent hears of each write: a hundred new figures are written no sooner than one, and a
    changed fact soon.
    """
    cluster.tell(Report({"bypass": "on"}, {"share": 0.0}))
    until(lambda: report(api))
    for number in range(100):
        cluster.tell(Report({"bypass": "on"}, {"share": number / 100}))
    cluster.tell(Report({"bypass": "off"}, {"share": 1.0}))
    until(lambda: report(api).get("bypass") == "off")
    assert len(api.patches) == 2
    cluster.tell(Report({"bypass": "off"}, {"share": 0.25}))
    until(lambda: report(api)["share"] == 0.25)
    assert len(api.patches) == 3
