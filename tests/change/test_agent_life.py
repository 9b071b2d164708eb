# SPDX-License-Identifier: Apache-2.0
"""The agent ends, by whatever means, and comes back: traffic does not notice."""

from __future__ import annotations

import os
import signal
import time

import pytest
import standing
from everyone import BYPASSED, everyone, stream
from rig import AGENT, ROUNDS, attach, counted, detach, end_agent, listen, talk

from vxlane.agent.sole import is_awaited
from vxlane.lab import agents
from vxlane.lab.waiting import wait_for


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_agent_ends_and_returns(pair, number):
    """The agent ends and another one takes over under UDP and TCP: not one packet is lost.

    A killed one leaves a lease that bridges a restart, a stopped one none: packets take the kernel
    path meanwhile. The new agent approves all anew.
    """
    lab = pair
    with everyone(lab) as talks:
        data = stream(talks, lab, "node1-pod2", "node2-pod2")
        talks.start()
        talks.go_on()
        end_agent(lab, "node1", number)
        with lab.verdicts("node1") as dead:
            talks.go_on()
            talks.stop()
        assert (talks.lost, talks.faults) == (0, [])
        if number is signal.SIGKILL:
            assert dead["from_pod", "encapsulated"] > 0
        else:
            assert {verdict for _, verdict in counted(dead)} == {"no_agent"}

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
    # The last two where it took the new agent longer than the old one's lease, and where it took
    # more than a second to read the rules.
    learnt = {"flow_withdrawn", "flow_half", "flow_unknown"}
    assert set(from_pods) <= learnt | {"no_agent", "judged"}
    assert bypassed + sum(from_pods.values()) == 2 * sent
    assert from_pods["flow_withdrawn"] > 0


def test_the_next_agent_stands_by(pair):
    """As in an update of the DaemonSet: the old agent is stopped while the next one waits. Not one
    packet is lost, and none finds the programs without an agent.
    """
    lab = pair
    node, first = lab.node("node1"), lab.agent_pid("node1")
    with everyone(lab) as talks, lab.verdicts("node1") as seen:
        talks.start()
        agents.start(node, lab.lab.nodes_file, (*AGENT, "--stand-by"))
        wait_for(lambda: is_awaited(node.directory), "the next agent")
        os.kill(first, signal.SIGTERM)
        agents.await_ready(node)
        talks.go_on()
        talks.stop()
        assert (talks.lost, talks.faults) == (0, [])
    assert seen["from_pod", "encapsulated"] > 0
    assert "no_agent" not in {verdict for _, verdict in counted(seen)}


TICKS = 50_000_000
"""ns; the programs' coarse clock lags by one tick, and by some on a machine that is busy."""
LEASE = 3_000_000_000
"""ns; no killed agent leaves more."""


def await_end_of_lease(lab, node):
    """Wait until the lease of a killed agent has run out by the programs' clock too."""
    with lab.maps(node) as maps:
        end = maps.settings().lease_until
    assert end <= time.monotonic_ns() + LEASE
    wait_for(lambda: time.monotonic_ns() > end + TICKS, "end of lease")


def test_agent_dead_for_longer_than_its_lease(pair):
    """All of its node's packets take the kernel path, and pods made meanwhile are reached.

    Nothing is lost when that begins, nor when an agent is back.
    """
    lab = pair
    node2 = lab.node("node2")
    with everyone(lab) as talks:
        lab.kill_agent("node2")
        talks.start()
        await_end_of_lease(lab, "node2")
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
        places = ("from_pod", "from_nic", "to_pod")
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
            ("from_pod", "no_peer"): ROUNDS,
            ("to_pod", "no_stamp"): ROUNDS,
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_peer_changes_while_no_agent_runs(adopted, number):
    """A peer's new VTEP MAC is not answered by an old map: at once after SIGTERM, in 3 s else."""
    lab, mac = adopted, "02:00:00:00:00:42"
    node1, node2 = lab.node("node1"), lab.node("node2")
    put = "nud permanent dev flannel.1"
    with everyone(lab) as talks:
        talks.exchange(ROUNDS)
        end_agent(lab, "node1", number)
        with lab.maps("node1") as maps:
            left = maps.settings().lease_until - time.monotonic_ns()
        assert left <= (LEASE if number is signal.SIGKILL else 0)
        for node, command in (
            ("node2", f"ip link set flannel.1 address {mac}"),
            # A device that gets another MAC loses its neighbours.
            ("node2", f"ip neigh replace {node1.pod_cidr[0]} lladdr {node1.vtep_mac} {put}"),
            ("node1", f"bridge fdb replace {mac} dev flannel.1 dst {node2.address} self permanent"),
            ("node1", f"ip neigh replace {node2.pod_cidr[0]} lladdr {mac} {put}"),
        ):
            lab.exec(node, *command.split())
        if number is signal.SIGKILL:
            await_end_of_lease(lab, "node1")
        before = talks.lost
        with lab.verdicts("node1") as seen:
            talks.exchange(ROUNDS)
        assert {verdict for _, verdict in counted(seen)} == {"no_agent"}
        assert (talks.lost - before, talks.faults) == (0, [])
