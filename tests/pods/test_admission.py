# SPDX-License-Identifier: Apache-2.0
"""Pods that somebody wants on the kernel path are not in the programs' map."""

from __future__ import annotations

import pytest
from podhost import Node, hooks, pod

from vxlane.pods.interfaces import PodInterface
from vxlane.pods.pods import NOT_YET_KNOWN


class Doorkeeper:
    """Says the same of every pod; remembers who was forgotten."""

    def __init__(self) -> None:
        self.word: str | None = ""
        self.forgotten: list[str] = []

    def reason(self, _: PodInterface) -> str | None:
        """See `Admission`."""
        return self.word

    def forget(self, pod: PodInterface) -> None:
        """See `Admission`."""
        self.forgotten.append(pod.host_ifname)


@pytest.fixture
def door(node: Node) -> Doorkeeper:
    """The doorkeeper of `node`."""
    made = Doorkeeper()
    node.pods.admission = made
    return made


@pytest.mark.parametrize("word", ["its annotation says off", None])
def test_a_pod_that_is_left_out_is_no_failure(
    node: Node, door: Doorkeeper, word: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """No entry and no program, and the plugin, which may insist on the bypass, hears no refusal."""
    caplog.set_level("INFO")
    door.word = word
    assert node.pods.add(pod(1)) == ""
    assert (node.accelerated(), node.host.hooks, node.pods.ports()) == ({}, set(), ())
    assert (word or NOT_YET_KNOWN) in caplog.text


def test_a_pod_is_let_in_as_soon_as_that_is_known(node: Node, door: Doorkeeper) -> None:
    """And out again, when another word comes; who stays as it was is not touched."""
    door.word = None
    node.pods.add(pod(1))
    for word, accelerated in (("", {"10.42.1.1": 11}), ("off", {}), ("", {"10.42.1.1": 11})):
        door.word = word
        node.pods.reconsider()
        assert node.accelerated() == accelerated
        assert node.host.hooks == (hooks(11) if accelerated else set())


def test_a_pod_is_forgotten_when_it_comes_and_goes(node: Node, door: Doorkeeper) -> None:
    """Its name may be another pod's, whose annotations differ."""
    node.pods.add(pod(1))
    node.pods.remove(pod(1).key)
    assert door.forgotten == ["veth1", "veth1"]
