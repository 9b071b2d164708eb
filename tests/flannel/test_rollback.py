# SPDX-License-Identifier: Apache-2.0
"""Back from mode own to flanneld: stop the agent, start flanneld, detach. Nothing is lost."""

from __future__ import annotations

import pytest
from golden import golden, shown, traces
from steps import steps

from vxlane.errors import LabError

LEFT = {"programs": set(), "sysctls": ["1", "1"], "clsact": []}
"""conntrack's leniency stays, and detach says so: connections that were bypassed need it."""


@pytest.fixture
def owned(make_cluster):
    """Node1 in mode own, fresh; the others under flanneld; a pod on each."""

    def make(**config):
        cluster = make_cluster(4, config=config or None, fresh="node1")
        cluster.start_flanneld("node2", "node3", "node4")
        cluster.start_agent("node1")
        cluster.await_routes(*cluster.names)
        cluster.add_pods(*cluster.names)
        return cluster

    return make


def roll_back(cluster, flows):
    """Take the documented steps on node1, and make a pod after each."""
    with flows.step("agent stops"):
        cluster.end_agent("node1")
    with flows.step("flanneld starts"):
        cluster.start_flanneld("node1")
        cluster.add_pods("node1")
    with flows.step("detach"):
        said = cluster.detach("node1")
    with flows.step("afterwards"):
        cluster.add_pods("node1")
        ping = ["ping", "-c", "2", "-i", "0.2", cluster.address("node2-pod1")]
        for pod in ("node1-pod2", "node1-pod3"):
            cluster.exec(pod, *ping)
    return said


def test_own_to_flanneld(owned):
    """On a fresh node, after detach, flanneld's network serves old pods and new ones."""
    cluster = owned()
    with steps(cluster) as flows:
        roll_back(cluster, flows)
        assert (flows.lost, flows.faults) == ([], [])
    assert shown(cluster, "node1") == golden(cluster, "node1")
    assert traces(cluster, "node1") == LEFT
    assert cluster.sh("node1", "sysctl -n net.ipv4.ip_forward").strip() == "1"


def test_own_to_flanneld_with_host_gw(owned):
    """The routes of host-gw, where no device says whose network it is, stay as well."""
    cluster = owned(Type="host-gw")
    routes = shown(cluster, "node1")["routes"]
    assert routes == [f"10.42.{n}.0/24 via 192.168.77.1{n} dev eth0" for n in (2, 3, 4)]
    with steps(cluster) as flows:
        roll_back(cluster, flows)
        assert (flows.lost, flows.faults) == ([], [])
    assert shown(cluster, "node1")["routes"] == routes
    assert traces(cluster, "node1") == LEFT


def test_own_to_flanneld_after_a_device_was_made_anew(owned):
    """A device that went and that the agent made again is flanneld's after flanneld's start."""
    cluster = owned()
    cluster.sh("node1", "ip link del flannel.1")
    cluster.await_routes("node1")
    with steps(cluster) as flows:
        roll_back(cluster, flows)
        assert (flows.lost, flows.faults) == ([], [])
    assert shown(cluster, "node1") == golden(cluster, "node1")


def test_flanneld_to_own_and_back(flannel):
    """A node that flanneld had before is, after its return, what it was."""
    before = shown(flannel, "node1")
    with steps(flannel) as flows:
        with flows.step("flanneld stops"):
            flannel.end_flanneld("node1")
        with flows.step("own starts"):
            flannel.start_agent("node1")
        roll_back(flannel, flows)
        assert (flows.lost, flows.faults) == ([], [])
    assert shown(flannel, "node1") == before
    assert traces(flannel, "node1") == LEFT


def test_the_network_goes_only_when_asked_and_unused(owned):
    """Detach alone leaves the kernel path; --network refuses while flanneld or pods live on it."""
    cluster = owned()
    with steps(cluster) as flows:
        with flows.step("detach"):
            cluster.detach("node1")
        assert (flows.lost, flows.faults) == ([], [])
    assert shown(cluster, "node1") == golden(cluster, "node1")
    cluster.start_agent("node1")
    with pytest.raises(LabError, match="pods use this node's network"):
        cluster.detach("node1", "--network")
    assert cluster.is_ready("node1")
    cluster.start_flanneld("node1")
    with pytest.raises(LabError, match=r"flanneld .* keeps this node's network now"):
        cluster.detach("node1", "--network")
    cluster.end_flanneld("node1")
    assert shown(cluster, "node1") == golden(cluster, "node1")
    cluster.lab.remove_pod(cluster.pod("node1-pod1"))
    cluster.detach("node1", "--network")
    left = shown(cluster, "node1")
    assert (left["device"], left["routes"], left["rules"]) == (None, [], [])
    assert left["subnet.env"] is None
    assert cluster.sh("node1", "sysctl -n net.ipv4.ip_forward").strip() == "1"
