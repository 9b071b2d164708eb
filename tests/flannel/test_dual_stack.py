# SPDX-License-Identifier: Apache-2.0
"""A network of both families is refused in mode own; adopt accelerates its IPv4 half."""

from __future__ import annotations

import json

from cluster import PREFIX
from golden import shown
from steps import steps


def test_both_families(flannel):
    """Mode own ends at once, says why, and has touched nothing; adopt leaves IPv6 alone."""
    document = {
        "EnableIPv6": True,
        "Network": "10.42.0.0/16",
        "IPv6Network": "fd00:42::/48",
        "Backend": {"Type": "vxlan"},
    }
    flannel.etcd.ctl("put", f"{PREFIX}/config", json.dumps(document))
    before, keys = shown(flannel, "node1"), flannel.published_macs()
    flannel.start_agent("node1", wait=False)
    agent = flannel.agents.pop("node1")
    assert agent.process.wait(timeout=10) != 0
    assert "the network has IPv6, and mode own serves IPv4 alone; keep flanneld" in agent.said()
    assert shown(flannel, "node1") == before
    assert flannel.published_macs() == keys
    assert len(flannel.etcd.ctl("get", "--keys-only", "--prefix", f"{PREFIX}/subnets").split()) == 4
    with steps(flannel) as flows:
        with flows.step("adopt"):
            flannel.start_agent("node1", mode="adopt")
        with flannel.verdicts("node1") as seen, flows.step("bypassed"):
            pass
        assert (flows.lost, flows.faults) == ([], [])
    assert seen["from_pod", "encapsulated"] > 0
