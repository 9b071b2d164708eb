# SPDX-License-Identifier: Apache-2.0
"""The stand-in does to a node what flanneld does, and vxlane's mode own makes the same."""

from __future__ import annotations

import pytest
from cluster import Cluster, KubeCluster
from golden import golden, shown

from vxlane.lab.waiting import wait_for


@pytest.mark.parametrize("maker", ["flanneld", "own"])
@pytest.mark.parametrize("kind", [Cluster, KubeCluster], ids=["etcd", "kubernetes"])
def test_a_node_is_what_flannel_makes_of_it(make_cluster, kind, maker):
    """Device, entries, rules and subnet.env are flannel's to the byte, whoever made them."""
    cluster = make_cluster(3, kind)
    cluster.start_flanneld("node2", "node3")
    if maker == "flanneld":
        cluster.start_flanneld("node1")
    else:
        cluster.start_agent("node1")
    cluster.await_routes(*cluster.names)
    for name in cluster.names:
        assert shown(cluster, name) == golden(cluster, name)
    for daemon in [*cluster.flannelds.values(), *cluster.agents.values()]:
        daemon.end()
    assert shown(cluster, "node1") == golden(cluster, "node1")


def test_what_flanneld_repairs_and_what_not(make_cluster):
    """A rule that went is back at the next check, a route never; the subnet stays the node's."""
    cluster = make_cluster(2)
    cluster.start_flanneld(*cluster.names, options=("--iptables-resync", "1"))
    cluster.await_routes(*cluster.names)
    whole = shown(cluster, "node1")
    cluster.sh("node1", "iptables -t nat -D POSTROUTING 1; ip route del 10.42.2.0/24")
    wait_for(lambda: shown(cluster, "node1")["rules"] == whole["rules"], "the rule")
    assert shown(cluster, "node1")["routes"] == []
    # Its deletion would be tried ten times, with delays that double: 100 s.
    cluster.sh("node1", f"ip route add {whole['routes'][0]}")
    cluster.etcd.ctl("del", cluster.key("node2"))
    wait_for(lambda: not shown(cluster, "node1")["fdb"], "the end of node2's entries")
    daemon = cluster.flannelds["node2"]
    wait_for(lambda: daemon.process.poll() == 1, "the end of a daemon whose lease was revoked")
    cluster.start_flanneld("node2")
    cluster.await_routes("node1")
    assert shown(cluster, "node1") == whole


@pytest.mark.parametrize(
    ("kind", "keeps_mac"), [(Cluster, False), (KubeCluster, True)], ids=["etcd", "kubernetes"]
)
def test_a_device_that_went_comes_back_alone(make_cluster, kind, keeps_mac):
    """The device is made again without entries, and with etcd with a MAC that nobody knows."""
    cluster = make_cluster(2, kind)
    cluster.start_flanneld(*cluster.names)
    cluster.await_routes(*cluster.names)
    cluster.sh("node1", "ip link del flannel.1")
    wait_for(lambda: shown(cluster, "node1")["addresses"], "the device")
    now = shown(cluster, "node1")
    assert (now["routes"], now["neighbours"], now["fdb"]) == ([], [], [])
    published = cluster.published_macs()[cluster.node("node1").pod_cidr]
    assert (now["device"]["address"] == published) == keeps_mac


@pytest.mark.full
def test_host_gw_checks_its_routes(make_cluster):
    """A route of the backend host-gw that went is back after ten seconds."""
    cluster = make_cluster(2, config={"Type": "host-gw"})
    cluster.start_flanneld(*cluster.names)
    cluster.await_routes(*cluster.names)
    routes = ["10.42.2.0/24 via 192.168.77.12 dev eth0"]
    assert shown(cluster, "node1")["routes"] == routes
    assert "FLANNEL_MTU=1500\n" in shown(cluster, "node1")["subnet.env"]
    cluster.sh("node1", "ip route del 10.42.2.0/24")
    wait_for(lambda: shown(cluster, "node1")["routes"] == routes, "the route", seconds=13.0)
