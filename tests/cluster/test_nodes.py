# SPDX-License-Identifier: Apache-2.0
"""What is read off Node objects and Pod objects, and when a node is worse than before."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any

import pytest
from apiserver import make_node
from clusterserver import pod, said

from vxlane.cluster.health import Health, health_of, summary, worse
from vxlane.cluster.nodes import STALE, ClusterNode, document, node_of
from vxlane.cluster.rollout import changes
from vxlane.errors import ConfigError
from vxlane.sources.steering import BYPASS, EVERYTHING, NOTHING, REPORT, Wish

AT = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


def node(number: int = 1, *, later: float = 0.0, wanted: str = "", **report: Any) -> ClusterNode:
    """A node whose agent said so at AT, seen `later` seconds after."""
    thing = make_node(number)
    annotations = thing["metadata"]["annotations"]
    if wanted:
        annotations[BYPASS] = wanted
    annotations[REPORT] = json.dumps(said(wanted or "on") | {"at": "2026-01-01T00:00:00Z"} | report)
    return node_of(thing, AT + dt.timedelta(seconds=later))


def test_a_node_tells_what_it_is_and_what_its_agent_said() -> None:
    """All keys of `vxlane cluster status --json`."""
    assert document(node(wanted="25%", later=7)) == {
        "node": "node-00001",
        "version": "0.1.0",
        "mode": "adopt",
        "wanted": "25%",
        "bypass": "on",
        "share": 0.9,
        "packets": 1000,
        "pods": 2,
        "age_seconds": 7,
        "obstacle": None,
        "troubles": [],
    }


@pytest.mark.parametrize(
    ("report", "later", "trouble"),
    [
        ({}, STALE + 1, "its agent has said nothing for 11 minutes"),
        ({"ready": False}, 0, "its agent is not ready"),
        ({"trouble": "no bpffs"}, 0, "no bpffs"),
        ({"bypass": "unavailable"}, 0, "it is to be on and is unavailable"),
        ({"wish": "off", "bypass": "off"}, 0, "it is to be on and is off"),
        ({"at": "yesterday"}, 0, "its agent has said nothing for 0 minutes"),
    ],
)
def test_a_trouble_is_told_in_words(report: dict[str, Any], later: float, trouble: str) -> None:
    """The worst one first."""
    assert node(later=later, **report).troubles[0] == trouble


@pytest.mark.parametrize(
    ("wanted", "wish"),
    [("0%", NOTHING), ("100%", EVERYTHING), (" OFF ", NOTHING), ("On", EVERYTHING)],
)
def test_a_node_follows_whatever_the_spelling(wanted: str, wish: Wish) -> None:
    """A person's word means what it means to the agent, which reports it as it writes it."""
    found = node(wanted=wanted, wish=str(wish), bypass=str(wish))
    assert (found.follows, found.troubles, changes([found], wish)) == (True, [], [])


@pytest.mark.parametrize("wanted", ["soon", ""])
def test_a_word_that_no_agent_knows_is_a_trouble(wanted: str) -> None:
    """The agent goes on as before, and the next change writes a word that it knows."""
    found = dataclasses.replace(node(), wanted=wanted)
    assert not found.follows
    assert len(found.troubles) == len(changes([found], EVERYTHING)) == 1


def test_a_report_that_is_none_is_no_agent() -> None:
    """Garbage in the annotation breaks nothing; a clock that is ahead makes no report old."""
    thing = make_node(1)
    for text in ("", "{", "[]", "7"):
        thing["metadata"]["annotations"][REPORT] = text
        assert node_of(thing, AT).troubles == ["no agent has reported from it"]
    assert node(later=-100).age == 0


@pytest.mark.parametrize("key", ["share", "packets", "pods", "failures", "problems"])
@pytest.mark.parametrize(
    "value",
    [
        *('"x"', '"1"', "NaN", "Infinity", "-Infinity", "1e999", "true", "[1]", '{"a": 1}'),
        *("[" * 200 + "]" * 200, "1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000),
    ],
)
def test_a_figure_that_is_none_is_no_report(key: str, value: str) -> None:
    """Its node is one without an agent, and is shown and compared as such."""
    thing = make_node(1)
    text = json.dumps(said("on") | {key: "HERE"})
    thing["metadata"]["annotations"][REPORT] = text.replace('"HERE"', value)
    found = node_of(thing, dt.datetime.now(dt.timezone.utc))
    assert found.troubles == ["no agent has reported from it"]
    assert document(found)[key if key in document(found) else "share"] is None
    ill = health_of(found, [])
    assert summary(ill) == "no traffic, 0 of 0 pods ready"
    assert worse(health(), ill) == ["its agent does not report"]
    assert worse(ill, health()) == []


@pytest.mark.parametrize(
    "report",
    [
        {"packets": -1},
        {"packets": 0.5},
        {"failures": 2.0},
        {"ready": "yes"},
        {"ready": 1},
        {"trouble": ["no room"]},
        {"trouble": "\ud800"},
        {"version": 7},
        {"bypass": {"on": True}},
        {"at": 20260101},
    ],
)
def test_a_report_with_a_value_of_another_kind_is_none(report: dict[str, Any]) -> None:
    """No agent writes so."""
    assert node(**report).report == {}


def test_a_report_may_lack_keys_and_have_others() -> None:
    """Agents of other versions know other ones."""
    found = node(share=None, failures=None, tomorrow=[None])
    assert (found.troubles, found.is_reporting) == ([], True)
    assert worse(health(), health_of(found, [])) == []
    assert [node(share=share).report["share"] for share in (0, 1, 0.25)] == [0, 1, 0.25]


@pytest.mark.parametrize(
    ("backend", "kernel", "obstacle"),
    [
        (None, "6.1", "flannel does not run there"),
        ("wireguard", "6.1", "its flannel has backend wireguard"),
        ("vxlan", "4.19.0-27-amd64", "kernel 4.19.0-27-amd64; 5.15 is needed"),
        ("vxlan", "5.15.0-91-generic", ""),
        ("host-gw", "odd", ""),
    ],
)
def test_an_obstacle_leaves_a_node_out(backend: str | None, kernel: str, obstacle: str) -> None:
    """It is no trouble: such a node never has an agent's report."""
    thing = make_node(1)
    if backend is None:
        thing["metadata"]["annotations"] = {}
    else:
        thing["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"] = backend
    thing["status"]["nodeInfo"] = {"kernelVersion": kernel}
    found = node_of(thing, AT)
    assert found.obstacle == obstacle
    assert found.troubles == ([] if obstacle else ["no agent has reported from it"])


def health(*pods: dict[str, Any], **report: Any) -> Health:
    """Of a node that is Ready."""
    return health_of(node(**report), pods)


def test_pods_that_ended_or_go_are_not_counted() -> None:
    """A Job's pods, and those that are being deleted, are ready never again."""
    ended, going = pod(ready=False), pod(ready=False)
    ended["status"]["phase"] = "Succeeded"
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = health(pod(restarts=2), pod(ready=False), ended, going)
    assert (found.pods, found.ready, found.restarts) == (2, 1, 2)
    assert summary(found) == "90% of 1000 packets bypassed, 1 of 2 pods ready"
    assert summary(health(share=None)) == "no traffic, 0 of 0 pods ready"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (health(pod(ready=False), pod()), "1 of 2 pods are not ready, 0 before"),
        (health(pod(restarts=1), pod()), "containers have restarted 1 times"),
        (health(pod(), pod(), ready=False), "its agent is not ready any more"),
        (
            health(pod(), pod(), failures=1, trouble="no room"),
            "its agent has 1 failures, 0 before: no room",
        ),
        (
            health(pod(), pod(), problems=2, trouble=""),
            "its agent has 2 problems, 0 before: see vxlane status there",
        ),
        (health(pod(), pod(), later=STALE + 1), "its agent does not report"),
    ],
)
def test_a_node_is_worse_than_before(now: Health, said: str) -> None:
    """Each in words."""
    assert worse(health(pod(), pod()), now) == [said]


def test_a_node_that_is_not_ready_any_more_is_worse() -> None:
    """As kubelet says it; and one that was not before is not."""
    well = health(pod())
    ill = dataclasses.replace(well, node=dataclasses.replace(well.node, is_ready=False))
    assert worse(well, ill) == ["the node is not Ready any more"]
    assert worse(ill, ill) == worse(ill, well) == worse(well, well) == []


def test_what_was_bad_before_is_no_reason() -> None:
    """Nor are fewer pods, fewer restarts or other shares."""
    before = health(pod(ready=False, restarts=3), pod(), failures=1)
    assert worse(before, health(pod(), failures=1, share=0.1)) == []


def test_only_what_differs_is_changed() -> None:
    """A node without the annotation is on already."""
    nodes = [node(1), node(2, wanted="off"), node(3, wanted="25%")]
    assert [c.node.name for c in changes(nodes, EVERYTHING)] == ["node-00002", "node-00003"]
    assert [c.node.name for c in changes(nodes, NOTHING)] == ["node-00001", "node-00003"]
    assert [c.node.name for c in changes(nodes, Wish(25), ["node-00002", "node-00001"])] == [
        "node-00002",
        "node-00001",
    ]
    assert str(changes(nodes, NOTHING)[0]) == (
        "node-00001: annotation vxlane.io/bypass=off (now: on, by default)"
    )


def test_a_node_that_cant_follow_is_not_switched_on() -> None:
    """By name it is refused, among all it is left out; off is always possible."""
    nodes = [node(1, wanted="off", later=STALE + 1), node(2, wanted="off")]
    with pytest.raises(ConfigError, match="no agent reports from node node-00001"):
        changes(nodes, EVERYTHING, ["node-00001"])
    assert [change.node.name for change in changes(nodes, EVERYTHING)] == ["node-00002"]
    with pytest.raises(ConfigError, match="no node 'node-7'; there are node-00001, node-00002"):
        changes(nodes, NOTHING, ["node-7"])
