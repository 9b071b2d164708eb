# SPDX-License-Identifier: Apache-2.0
"""What a cluster may say of a node's bypass, and of a pod's."""

from __future__ import annotations

import json

import pytest

from vxlane.errors import ConfigError
from vxlane.sources.steering import (
    BYPASS,
    EVERYTHING,
    NOTHING,
    NoCluster,
    Report,
    Wish,
    is_off,
    parse_wish,
)

PODS = [f"shop/web-{number}" for number in range(2000)]


@pytest.mark.parametrize(
    ("text", "wish"),
    [("on", EVERYTHING), (" OFF ", NOTHING), ("0%", NOTHING), ("25%", Wish(25)), ("100%", Wish())],
)
def test_a_nodes_annotation_is_read(text: str, wish: Wish) -> None:
    """On, off or a share of pods, and a wish prints as what means it."""
    assert parse_wish(text) == wish
    assert parse_wish(str(wish)) == wish


@pytest.mark.parametrize("text", ["", "true", "101%", "-1%", "07%", "2.5%", "%"])
def test_another_word_is_refused_with_those_that_are_known(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match=r"must be on, off, or a share of pods such as 25%"):
        parse_wish(text)


def test_a_share_is_about_that_share_of_the_pods() -> None:
    """A quarter of 2,000 pods, within four standard deviations (78)."""
    assert abs(sum(Wish(25).includes(pod) for pod in PODS) - 500) < 78
    assert not any(NOTHING.includes(pod) for pod in PODS)
    assert all(EVERYTHING.includes(pod) for pod in PODS)


def test_a_greater_share_keeps_the_pods_of_the_smaller() -> None:
    """Who goes on from 10 % to 50 % takes the bypass from nobody."""
    few = {pod for pod in PODS if Wish(10).includes(pod)}
    assert few < {pod for pod in PODS if Wish(50).includes(pod)}


@pytest.mark.parametrize(
    ("said", "meant"), [("off", "off"), ("Off ", "off"), ("on", "on"), ("25%", ""), ("", "")]
)
def test_a_pods_annotation_is_on_or_off(said: str, meant: str) -> None:
    """Any other word is no word of a pod or a namespace."""
    assert is_off({BYPASS: said}) is {"off": True, "on": False, "": None}[meant]
    assert is_off({}) is None


def test_a_report_is_one_object_with_its_time() -> None:
    """Facts, figures and the time are keys of one JSON object."""
    text = Report({"bypass": "on"}, {"share": 0.5}).text("2026-01-01T00:00:00Z")
    assert json.loads(text) == {"bypass": "on", "share": 0.5, "at": "2026-01-01T00:00:00Z"}


def test_without_a_cluster_everything_is_wanted() -> None:
    """A file or etcd steers nothing: no pod is opted out, and nothing is waited for."""
    cluster = NoCluster()
    assert (cluster.changed, cluster.wish(), cluster.opt_out("shop/web")) == (-1, EVERYTHING, "")
