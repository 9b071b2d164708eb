# SPDX-License-Identifier: Apache-2.0
"""From flanneld to vxlane and back under traffic: nothing is lost, and nothing left behind."""

from __future__ import annotations

import signal

from golden import golden, shown, traces
from steps import steps


def test_adopt_restart_detach(flannel):
    """Adopting, restarts of both sides and detach lose nothing, and leave a node never touched."""
    before = {name: shown(flannel, name) for name in flannel.names}
    with steps(flannel) as flows:
        agents = "node1", "node2"
        with flows.step("adopt"):
            for name in agents:
                flannel.start_agent(name, mode="adopt")
        with flannel.verdicts(*agents) as seen, flows.step("bypassed"):
            pass
        with flows.step("flanneld restarts"):
            flannel.end_flanneld("node1")
            flannel.start_flanneld("node1")
        with flows.step("the agent is killed"):
            flannel.end_agent("node1", number=signal.SIGKILL)
        with flows.step("both are upgraded at once"):
            flannel.end_agent("node2")
            flannel.end_flanneld(*agents)
            flannel.start_flanneld(*agents)
            for name in agents:
                flannel.start_agent(name, mode="adopt")
        with flows.step("detach"):
            for name in agents:
                flannel.detach(name)
        assert (flows.lost, flows.faults) == ([], [])
    assert seen["from_pod", "encapsulated"] > 0
    for name in flannel.names:
        assert shown(flannel, name) == golden(flannel, name) == before[name]
        left = traces(flannel, name)
        assert (left["programs"], left["clsact"]) == (set(), [])
