# SPDX-License-Identifier: Apache-2.0
"""Mode adopt follows all that flanneld does: host-gw, DirectRouting, another VNI, a new device."""

from __future__ import annotations

import pytest
from golden import golden, shown, traces
from steps import silence, steps

from vxlane.lab.waiting import wait_for


def start(make_cluster, **config):
    """Five nodes under flanneld with a backend, a pod on four."""
    cluster = make_cluster(5, config=config)
    cluster.start_flanneld(*cluster.names)
    cluster.await_routes(*cluster.names)
    cluster.add_pods("node1", "node2", "node3", "node4")
    return cluster


@pytest.mark.parametrize(
    ("config", "source"),
    [({"Type": "host-gw"}, False), ({"Type": "vxlan", "DirectRouting": True}, True)],
    ids=["host-gw, no source", "DirectRouting, etcd"],
)
def test_plain_routes_are_adopted(make_cluster, config, source):
    """Peers that flanneld routes to directly are bypassed, and nothing is lost or left."""
    cluster = start(make_cluster, **config)
    before = {name: shown(cluster, name) for name in cluster.names}
    with steps(cluster) as flows:
        with flows.step("adopt"):
            cluster.start_agent("node1", mode="adopt", source=source)
        with cluster.verdicts("node1") as seen, flows.step("bypassed"):
            pass
        status = cluster.status("node1")
        with flows.step("a peer goes and returns"):
            cluster.etcd.ctl("del", cluster.key("node5"))
            wait_for(lambda: "10.42.5.0/24" not in peers(cluster, "node1"), "the end of node5")
            wait_for(lambda: cluster.flannelds["node5"].process.poll() is not None, "its daemon")
            cluster.start_flanneld("node5")
            wait_for(lambda: "10.42.5.0/24" in peers(cluster, "node1"), "node5 again")
        with flows.step("detach"):
            cluster.detach("node1")
        assert (flows.lost, flows.faults) == ([], [])
    assert seen["from_pod", "routed"] > 0
    assert status["problems"] == []
    assert {name: shown(cluster, name) for name in cluster.names} == before
    assert traces(cluster, "node1")["programs"] == set()


def peers(cluster, name):
    """Pod CIDR -> peer, as a node's programs know them."""
    with cluster.maps(name) as maps:
        return {str(cidr): peer for cidr, peer in maps.peers().items()}


@pytest.mark.parametrize(
    ("config", "device", "said", "verdict"),
    [
        ({"Type": "vxlan", "VNI": 7}, "flannel.7", "the overlay goes by flannel.7", "encapsulated"),
        ({"Type": "host-gw"}, "eth0", "peer 10.42.2.0/24 direct", "routed"),
    ],
    ids=["VNI", "backend"],
)
def test_another_configuration_is_followed(flannel, config, device, said, verdict):
    """When flannel.7, or the NIC, takes flannel.1's place the agent follows without a restart.

    Between nodes of different configurations the kernel path loses packets; the bypass is back
    with it.
    """
    flannel.start_agent("node1", mode="adopt")
    pid = flannel.status("node1")["pid"]

    def change() -> None:
        flannel.configure(**config)
        flannel.end_flanneld(*flannel.names)
        flannel.start_flanneld(*flannel.names)
        routes = f"ip route | grep -c 'via.*dev {device} ' || true"
        for name in flannel.names:
            wait_for(lambda n=name: flannel.sh(n, routes) == "3\n", "flanneld's change")
        wait_for(lambda: said in flannel.agents["node1"].said(), "the agent's change")

    seen = silence(flannel, change)
    assert seen.bypassed < seen.by_kernel + 1.0
    # Other constants are another build of the programs: that takes seconds on a busy machine.
    wait_for(lambda: flannel.status("node1")["problems"] == [], "all its routes", seconds=30.0)
    with steps(flannel) as flows:
        with flannel.verdicts("node1") as moved, flows.step("bypassed again"):
            pass
        assert (flows.lost, flows.faults) == ([], [])
    assert moved["from_pod", verdict] > 0
    assert flannel.status("node1")["pid"] == pid


def test_a_device_without_routes_is_told_of(flannel):
    """What flanneld's watcher leaves wrong stands in status, until flanneld is restarted."""
    flannel.start_agent("node1", mode="adopt")
    flannel.sh("node1", "ip link del flannel.1")

    def problems():
        return "\n".join(flannel.status("node1")["problems"])

    wait_for(lambda: "flannel.1 is new and lacks the routes to 3 peers" in problems(), "the report")
    wait_for(lambda: "flannel.1 has the MAC" in problems(), "the MAC")
    assert "restart flanneld on this node" in problems()
    flannel.end_flanneld("node1")
    flannel.start_flanneld("node1")
    wait_for(lambda: problems() == "", "the end of the problems")
    wait_for(lambda: shown(flannel, "node1") == golden(flannel, "node1"), "a whole node")
    with steps(flannel) as flows:
        with flannel.verdicts("node1") as seen, flows.step("bypassed again"):
            pass
        assert flows.lost == []
    assert seen["from_pod", "encapsulated"] > 0
