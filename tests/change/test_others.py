# SPDX-License-Identifier: Apache-2.0
"""Somebody else's filters on our hooks: they see every packet, whoever came first."""

from __future__ import annotations

import pytest
from numbered import Listener, Talk, traffic
from rig import ROUNDS, counted, veth_of
from strangers import clsact, tcx

from vxlane.datapath.syscall import TcxHook
from vxlane.lab.underlay import ip
from vxlane.lab.waiting import wait_for

STRANGERS = [pytest.param(tcx, marks=pytest.mark.tcx), clsact]


@pytest.fixture
def talks(pair):
    """A pod of node1 talks to one of node2, and is bypassed both ways."""
    with traffic() as made:
        made.join(Listener(pair.netns("node2-pod1"), "server"))
        made.join(Talk(pair.netns("node1-pod1"), pair.address("node2-pod1")))
        made.begin()
        yield made


def exchange(lab, talks, seen):
    """Whether someone saw all packets of an exchange, none or some, and what we counted."""
    with lab.verdicts("node2") as moved:
        before = seen()
        talks.exchange(ROUNDS)
        count = seen() - before
    assert talks.lost == 0
    # ARP and IPv6 are seen too, now and then.
    share = "all" if ROUNDS <= count < ROUNDS + 10 else "some" if count else "none"
    return share, counted(moved)


BYPASSED = {("from_nic", "decapsulated"): ROUNDS, ("from_pod", "encapsulated"): ROUNDS}
"""What node2 counts of an exchange."""


def relearn(lab, talks, device):
    """Have the agent look at a device; what it withdraws by that is approved again."""
    touch(lab, device)
    talks.exchange(1)


def touch(lab, device):
    """Have the agent look at a device now, for the kernel tells nobody of a TCX program."""
    looks = lab.ask("node2", op="status")["status"]["reconciles"]
    ip(lab.netns("node2"), f"link set {device} alias touched")
    ip(lab.netns("node2"), f"link set {device} alias again")
    wait_for(lambda: lab.ask("node2", op="status")["status"]["reconciles"] > looks, "a look")


@pytest.mark.tcx
@pytest.mark.full
@pytest.mark.timeout(240)
@pytest.mark.parametrize("device", ["nic", "veth"])
def test_program_that_nobody_tells_of(pair, talks, device):
    """The agent finds a TCX program on its round, without an event.

    First of the tests here: after the others ours stand behind already.
    """
    veth = veth_of(pair, "node2", pair.netns("node2-pod1"))
    with tcx(pair, "node2", "eth0" if device == "nic" else veth, TcxHook.INGRESS) as seen:
        assert exchange(pair, talks, seen)[0] == "none"
        wait_for(lambda: exchange(pair, talks, seen)[0] == "all", "the round", seconds=100)
    touch(pair, veth)


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("hook", TcxHook, ids=lambda hook: hook.name.lower())
def test_filter_on_the_nic(pair, talks, stranger, hook):
    """A filter that came after ours sees each packet of either path, and the bypass goes on."""
    with stranger(pair, "node2", "eth0", hook) as seen:
        relearn(pair, talks, "eth0")
        assert exchange(pair, talks, seen) == ("all", BYPASSED)
    relearn(pair, talks, "eth0")
    assert exchange(pair, talks, int) == ("none", BYPASSED)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_filter_on_a_pods_way_out(pair, talks, stranger):
    """A filter on a pod's ingress sees all that the pod sends; what it is sent is bypassed."""
    veth = veth_of(pair, "node2", pair.netns("node2-pod1"))
    with stranger(pair, "node2", veth, TcxHook.INGRESS) as seen:
        touch(pair, veth)
        assert exchange(pair, talks, seen) == (
            "all",
            {
                ("from_pod", "guarded"): ROUNDS,
                ("from_nic", "decapsulated"): ROUNDS,
            },
        )
    relearn(pair, talks, veth)
    assert exchange(pair, talks, int) == ("none", BYPASSED)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_filter_on_a_pods_way_in(pair, talks, stranger):
    """A filter on the egress to a pod sees all that it is sent; what the pod sends is bypassed."""
    veth = veth_of(pair, "node2", pair.netns("node2-pod1"))
    with stranger(pair, "node2", veth, TcxHook.EGRESS) as seen:
        touch(pair, veth)
        assert exchange(pair, talks, seen) == (
            "all",
            {
                ("from_nic", "guarded"): ROUNDS,
                ("to_pod", "no_stamp"): ROUNDS,
                ("from_pod", "encapsulated"): ROUNDS,
            },
        )
    relearn(pair, talks, veth)
    assert exchange(pair, talks, int) == ("none", BYPASSED)
