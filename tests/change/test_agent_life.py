# SPDX-License-Identifier: Apache-2.0
"""The agent ends, by whatever means, and comes back: traffic does not notice."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

import pytest
import standing
from everyone import BYPASSED, ROUNDS, everyone, stream
from rig import AGENT, attach, counted, detach, end_agent, listen, talk

from vxlane.lab.waiting import wait_for


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_agent_ends_and_returns(pair, number):
    """The agent ends and another one takes over under UDP and TCP: not one packet is lost.

    Meanwhile every packet is bypassed as before; and the new one approves all anew.
    """
    lab = pair
    with everyone(lab) as talks:
        data = stream(talks, lab, "node1-pod2", "node2-pod2")
        talks.start()
        talks.go_on()
        end_agent(lab, "node1", number)
        talks.go_on()
        talks.stop()
        assert (talks.lost, talks.faults) == (0, [])
        with lab.verdicts("node1", "node2") as dead:
            talks.start()
            talks.go_on()
            talks.stop()
        assert set(counted(dead)) == set(BYPASSED)

        talks.start()
        lab.start_agent("node1", *AGENT)
        talks.go_on()
        talks.stop()
        assert (talks.lost, talks.faults) == (0, [])
        talks.leave(data)
        with lab.verdicts("node1", "node2") as again:
            talks.exchange(ROUNDS)
        assert counted(again) == BYPASSED
        assert talks.lost == 0


def test_every_packet_of_a_take_over_is_counted(pair):
    """Across kill and restart each packet is counted once: bypassed, or by the kernel path."""
    lab = pair
    with everyone(lab) as talks:
        before = sum(one.sent for one in talks.speakers)
        with lab.verdicts("node1", "node2") as seen:
            talks.start()
            lab.kill_agent("node1")
            lab.start_agent("node1", *AGENT)
            talks.go_on()
            talks.stop()
        sent = sum(one.sent for one in talks.speakers) - before
        assert talks.lost == 0
    from_pods = {key[1]: count for key, count in counted(seen).items() if key[0] == "from_pod"}
    bypassed = from_pods.pop("encapsulated") + from_pods.pop("switched")
    assert set(from_pods) <= {"flow_withdrawn", "flow_half", "flow_unknown"}
    assert bypassed + sum(from_pods.values()) == 2 * sent
    assert from_pods["flow_withdrawn"] > 0


def expire_lease(lab, node):
    """Bring the lease of a dead agent to its end, as the clock would."""
    with lab.maps(node) as maps:
        maps.put_settings(replace(maps.settings(), lease_until=time.monotonic_ns()))


def await_end_of_lease(lab, node):
    """Wait for the clock to do it."""
    with lab.maps(node) as maps:
        wait_for(
            lambda: time.monotonic_ns() > maps.settings().lease_until, "end of lease", seconds=40
        )


@pytest.mark.parametrize(
    "end_of_lease", [expire_lease, pytest.param(await_end_of_lease, marks=pytest.mark.full)]
)
def test_agent_dead_for_longer_than_its_lease(pair, end_of_lease):
    """All of its node's packets take the kernel path, and pods made meanwhile are reached.

    Nothing is lost when that begins, nor when an agent is back.
    """
    lab = pair
    node2 = lab.node("node2")
    with everyone(lab) as talks:
        lab.kill_agent("node2")
        talks.start()
        end_of_lease(lab, "node2")
        talks.go_on()
        talks.stop()
        fresh = lab.lab.add_pod(node2)
        name = fresh.name.removeprefix(f"{lab.lab.name}-")
        listen(talks, lab, name)
        for client in ("node1-pod1", "node2-pod1"):
            talk(talks, lab, client, name)
        talks.exchange(10)
        with lab.verdicts("node2") as seen:
            talks.exchange(ROUNDS)
        places = ("from_pod", "from_nic", "to_overlay", "to_pod")
        assert set(counted(seen)) == {(place, "no_agent") for place in places}
        # No program stands on the fresh pod's veth; and nobody tells ARP from IP any more.
        assert all(3 * ROUNDS <= count < 4 * ROUNDS for count in counted(seen).values())
        lab.start_agent("node2", *AGENT)
        talks.exchange(10)
        with lab.verdicts("node2") as again:
            talks.exchange(ROUNDS)
        assert counted(again) == {
            ("from_pod", "encapsulated"): 2 * ROUNDS,
            ("from_nic", "decapsulated"): 2 * ROUNDS,
            # The fresh pod was never told of.
            ("from_nic", "no_pod"): ROUNDS,
            ("to_overlay", "no_pod"): ROUNDS,
            ("from_pod", "no_peer"): ROUNDS,
            ("to_pod", "no_peer"): ROUNDS,
        }
        assert talks.lost == 0
    lab.lab.remove_pod(fresh)


@pytest.fixture
def adopted(make_lab):
    """Two stock nodes whose overlay vxlane has adopted, under kube-proxy's rule for the invalid."""
    lab = make_lab(nodes=2, pods_per_node=2, kernel_only=2)
    for node in ("node1", "node2"):
        rule = ("FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        lab.exec(node, "iptables", "-I", *rule)
        lab.start_agent(node, *AGENT, "--mode", "adopt")
        for pod in (f"{node}-pod1", f"{node}-pod2"):
            assert attach(lab, node, lab.netns(pod))["accelerated"]
    return lab


def test_detach_under_traffic(adopted):
    """`vxlane detach` under UDP and TCP loses nothing, and leaves nothing but the kernel path."""
    lab = adopted
    with everyone(lab) as talks:
        for port, pod in enumerate(["node2-pod2", "node1-pod1"] * 10, start=7300):
            stream(talks, lab, "node1-pod2", pod, port=port)
        talks.exchange(20)
        with lab.verdicts("node1", "node2") as seen:
            talks.exchange(20)
        assert set(counted(seen)) == set(BYPASSED)
        talks.start()
        for node in ("node1", "node2"):
            assert standing.programs(lab.netns(node))
            detach(lab, node)
            talks.go_on(20)
        talks.stop()
        assert (talks.lost, talks.faults) == (0, [])
    for node in ("node1", "node2"):
        assert not (lab.node(node).directory / "bpf").exists()
        assert standing.programs(lab.netns(node)) == set()
