# SPDX-License-Identifier: Apache-2.0
"""A node that was switched is watched, or set back, whatever becomes of the server and of the
person at the keyboard.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
from apiserver import make_node
from clusterserver import pod, said

from vxlane.cluster.rollout import Patience, Rollout, changes, read
from vxlane.errors import SourceError, VxlaneError
from vxlane.sources.http import HttpError
from vxlane.sources.steering import BYPASS, EVERYTHING, NOTHING, REPORT

LOST = SourceError("timed out")
BUSY = HttpError("url", 429, words="not now")
FORBIDDEN = HttpError("url", 403, words="not you")
GONE = HttpError("url", 404, words="not found")
AGAIN = f"asking again: {LOST}"
SET_BACK = "'kubectl annotate --overwrite node node-00001 vxlane.io/bypass=off' sets it back"


class Cluster:
    """node-00001 alone, whose agent follows at once. `faults` are what calls of a name raise, one
    after the other, None for an answer; the last one stays. `told` is what was said.
    """

    def __init__(self, wanted: str | None = "off") -> None:
        self.thing = make_node(1)
        self.pods: list[list[Any]] = [[]]
        """At each call, the last for all further ones."""
        self.faults: dict[str, list[BaseException | None]] = {}
        self.told: list[str] = []
        self.words: list[str | None] = []
        self._write(wanted)

    def nodes(self) -> list[Mapping[str, Any]]:
        """See `ClusterApi`."""
        self._fail("nodes")
        return [self.thing]

    def node(self, _: str) -> Mapping[str, Any]:
        """See `ClusterApi`."""
        self._fail("node")
        return self.thing

    def pods_of(self, _: str) -> list[Any]:
        """See `ClusterApi`."""
        self._fail("pods_of")
        return self.pods.pop(0) if self.pods[1:] else self.pods[0]

    def annotate(self, _: str, annotations: Mapping[str, str | None]) -> None:
        """See `ClusterApi`."""
        self._fail("annotate")
        self.words.append(annotations[BYPASS])
        self._write(annotations[BYPASS])

    def rollout(self, *, answer: float = 60.0, soak: float = 0.0) -> Rollout:
        """On this cluster."""
        api: Any = self
        return Rollout(api, Patience(soak, 0.0, answer), self.told.append)

    def enable(self, **patience: float) -> None:
        """Switch the node on."""
        api: Any = self
        planned = changes(read(api), EVERYTHING)
        self.rollout(**patience).one_by_one(planned)

    def _write(self, word: str | None) -> None:
        annotations = self.thing["metadata"]["annotations"]
        annotations |= {BYPASS: word, REPORT: json.dumps(said(word or "on"))}
        if word is None:
            del annotations[BYPASS]

    def _fail(self, call: str) -> None:
        faults = self.faults.get(call, [None])
        fault = faults.pop(0) if len(faults) > 1 else faults[0]
        if fault is not None:
            raise fault


@pytest.mark.parametrize(
    ("call", "faults"),
    [
        ("nodes", [None, LOST, BUSY, None]),
        ("node", [None, LOST, BUSY, None]),
        ("node", [LOST, BUSY, None]),
        ("pods_of", [None, LOST, BUSY, None]),
        ("annotate", [LOST, BUSY, None]),
    ],
)
def test_a_call_that_fails_is_made_again(call: str, faults: list[BaseException | None]) -> None:
    """The node goes on being watched, and it is told once that the server gave no answer."""
    cluster = Cluster()
    cluster.faults[call] = faults
    cluster.enable()
    assert (cluster.words, cluster.told.count(AGAIN)) == (["on"], 1)
    assert cluster.told[-1].startswith("node-00001: before: ")


@pytest.mark.parametrize(
    ("call", "fault"),
    [("nodes", LOST), ("node", LOST), ("pods_of", BUSY), ("pods_of", FORBIDDEN)],
)
def test_a_node_that_cant_be_watched_is_set_back(call: str, fault: BaseException) -> None:
    """When the server has given no answer for too long, or refuses to."""
    cluster = Cluster()
    cluster.faults[call] = [None, fault]
    with pytest.raises(VxlaneError) as caught:
        cluster.enable(answer=60.0 if fault is FORBIDDEN else 0.0)
    assert str(caught.value) == (
        f"node node-00001 is set back to off, since it can't be watched: {fault}; "
        "'vxlane cluster rollback' switches all nodes off"
    )
    assert cluster.words == ["on", "off"]


def test_a_node_that_cant_be_set_back_is_named_with_the_command() -> None:
    """It stays switched, and nobody watches it."""
    cluster = Cluster()
    cluster.faults = {"node": [None, LOST], "annotate": [None, LOST]}
    with pytest.raises(VxlaneError) as caught:
        cluster.enable(answer=0.0)
    assert str(caught.value).startswith(
        f"node node-00001 stays on, and {SET_BACK} (timed out), since it can't be watched: timed"
    )


def test_a_worse_node_is_set_back_at_the_second_try() -> None:
    """One answer that does not come leaves no worse node switched."""
    cluster = Cluster()
    cluster.faults["annotate"] = [None, LOST, None]
    worse = make_node(1)
    worse["status"]["conditions"] = []
    nodes = iter([cluster.thing, worse])
    cluster.node = lambda _: next(nodes)  # type: ignore[method-assign]
    with pytest.raises(VxlaneError, match="is set back to off, since the node is not Ready any"):
        cluster.enable()
    assert cluster.words == ["on", "off"]


@pytest.mark.parametrize(
    ("call", "faults"), [("node", [None, KeyboardInterrupt()]), ("nodes", [None, SystemExit(1)])]
)
def test_an_interrupted_soak_sets_the_node_back(
    call: str, faults: list[BaseException | None]
) -> None:
    """What the annotation said before is said again, and the interrupt goes on."""
    cluster = Cluster()
    cluster.faults[call] = faults
    with pytest.raises(type(faults[-1])):  # type: ignore[arg-type]
        cluster.enable(soak=60.0)
    assert cluster.words == ["on", "off"]
    assert cluster.told[-1] == "node node-00001 is set back to off"


def test_a_second_interrupt_leaves_the_node_and_says_so() -> None:
    """With the command that sets it back."""
    cluster = Cluster()
    cluster.faults = {
        "node": [None, KeyboardInterrupt()],
        "annotate": [None, LOST, KeyboardInterrupt()],
    }
    with pytest.raises(KeyboardInterrupt):
        cluster.enable(soak=60.0)
    assert cluster.words == ["on"]
    assert cluster.told[-1] == f"node node-00001 stays on, and {SET_BACK}"


@pytest.mark.parametrize(("fault", "tries"), [(LOST, ["off"]), (FORBIDDEN, [])])
def test_a_switch_without_an_answer_is_taken_for_done(
    fault: BaseException, tries: list[str]
) -> None:
    """It is set back; one that was refused was not done, and nothing is said of the node."""
    cluster = Cluster()
    cluster.faults["annotate"] = [fault, None]
    with pytest.raises(type(fault)):
        cluster.enable(answer=-1.0)
    assert cluster.words == tries


def test_a_terminal_that_has_gone_keeps_no_node_switched() -> None:
    """The node is set back before that is said."""
    cluster = Cluster()
    cluster.told = Gone()
    with pytest.raises(BrokenPipeError):
        cluster.enable()
    assert cluster.words == ["on", "off"]


class Gone(list[str]):
    """Nobody reads it any more."""

    def append(self, _: str) -> None:
        """As a write to a closed pipe."""
        raise BrokenPipeError


def test_a_node_without_the_annotation_gets_none_back() -> None:
    """The command takes it away, too."""
    cluster = Cluster(None)
    cluster.faults = {"node": [None, LOST], "annotate": [None, LOST]}
    api: Any = cluster
    planned = changes(read(api), NOTHING)
    with pytest.raises(VxlaneError, match=r"stays off, and '.* node-00001 vxlane.io/bypass-' sets"):
        cluster.rollout(answer=0.0).one_by_one(planned)


def test_a_rollback_does_not_end_at_a_call_that_fails() -> None:
    """All nodes are to be off."""
    cluster: Any = Cluster("on")
    cluster.faults["annotate"] = [BUSY, None]
    cluster.rollout().at_once(changes(read(cluster), NOTHING))
    assert cluster.words == ["off"]


def test_a_rollback_does_not_end_at_a_node_that_went() -> None:
    """An autoscaler has deleted it since the list was read: the nodes behind it are switched."""
    cluster: Any = Cluster("on")
    cluster.faults["annotate"] = [GONE, None]
    (change,) = changes(read(cluster), NOTHING)
    gone = dataclasses.replace(change, node=dataclasses.replace(change.node, name="node-00000"))
    cluster.rollout().at_once([gone, change])
    assert cluster.words == ["off"]
    assert cluster.told == ["node-00000: it is not there any more", f"node-00001: {BYPASS}=off"]


def test_a_pod_that_starts_meanwhile_is_no_reason() -> None:
    """A Job's, say: the kubelet has not had the time to make it ready. One that was there is."""
    was, fresh, ill = pod(uid="a"), pod(uid="b", ready=False), pod(uid="a", ready=False)
    cluster = Cluster()
    cluster.pods = [[was], [was, fresh]]
    cluster.enable()
    assert cluster.words == ["on"]
    cluster = Cluster()
    cluster.pods = [[was], [ill, fresh]]
    with pytest.raises(VxlaneError, match="since 1 of 1 pods are not ready, 0 before"):
        cluster.enable()
