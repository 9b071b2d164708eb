# SPDX-License-Identifier: Apache-2.0
"""An agent waits for what flanneld waits for, and status says for what."""

from __future__ import annotations

import itertools
import json
import time

from cluster import PREFIX
from golden import golden, shown

from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for


def test_the_configuration_comes_later(make_cluster):
    """No configuration, then garbage, then one: the agent and flanneld wait, and then serve."""
    cluster = make_cluster(2)
    key = f"{PREFIX}/config"
    cluster.etcd.ctl("del", key)
    cluster.start_flanneld("node2", wait=False)
    cluster.start_agent("node1", wait=False)

    def waits_for(words):
        wait_for(lambda: words in (waiting(cluster) or ""), f"{words!r} in status", seconds=15.0)
        assert key in waiting(cluster)
        assert cluster.agents["node1"].process.poll() is None

    waits_for("has no key")
    cluster.etcd.ctl("put", key, "{")
    waits_for("is not JSON")
    said = cluster.flannelds["node2"].said
    wait_for(lambda: "couldn't parse network config" in said(), "flanneld's word")
    cluster.configure(Type="vxlan")
    wait_for(lambda: cluster.is_ready("node1"), "the agent", seconds=30.0)
    cluster.await_routes(*cluster.names)
    assert not waiting(cluster)
    for name in cluster.names:
        assert shown(cluster, name) == golden(cluster, name)


def waiting(cluster):
    """What node1's agent says that it waits for, by `vxlane status --json`."""
    command = [program("vxlane"), "status", "--json"]
    env = {"VXLANE_STATE_DIR": str(cluster.node("node1").directory)}
    # A node that does not serve is a status other than 0.
    said = cluster.exec("node1", *command, env=env, check=False).stdout
    return json.loads(said)["agent"].get("waiting_for")


def test_all_peers_vanish(flannel):
    """Peers that vanish all at once stay, and that is logged once, not at each reconcile."""
    flannel.end_flanneld("node1", "node2", "node3", "node4")
    flannel.start_agent("node1")
    whole = shown(flannel, "node1")
    flannel.etcd.ctl("del", "--prefix", f"{PREFIX}/subnets/")
    said = flannel.agents["node1"].said
    wait_for(lambda: "all 3 peers vanished at once" in said(), "the report")
    # Seconds that are left are another number by then.
    end = time.monotonic() + 1.5
    addresses = itertools.count(1)

    def has_reconciled_for_long() -> bool:
        flannel.sh("node1", f"ip address add 192.0.2.{next(addresses)}/32 dev lo")
        return time.monotonic() > end

    wait_for(has_reconciled_for_long, "reconciles")
    assert shown(flannel, "node1") == whole
    assert said().count("peers vanished at once") == 1
