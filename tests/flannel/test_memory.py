# SPDX-License-Identifier: Apache-2.0
"""What an agent remembers serves while its source can't be asked, and never instead of it."""

from __future__ import annotations

from golden import golden, shown
from steps import steps
from test_frozen import change_mac

from vxlane.lab.waiting import wait_for


def test_old_memory_does_not_overrule_the_source(flannel):
    """An agent with old nodes.json that comes back leaves correct entries of the kernel alone."""
    flannel.end_flanneld("node1")
    flannel.start_agent("node1")
    flannel.end_agent("node1")
    flannel.start_flanneld("node1")
    change_mac(flannel, "node2")
    # flanneld leaves the old MAC's FDB entry; all else is as it should be.
    whole = golden(flannel, "node1") | {"fdb": None}
    wait_for(lambda: shown(flannel, "node1") | {"fdb": None} == whole, "node2's new MAC")
    flannel.end_flanneld("node1")
    with steps(flannel) as flows:
        with flows.step("own starts"):
            flannel.start_agent("node1")
        assert (flows.lost, flows.faults) == ([], [])
    assert shown(flannel, "node1") == golden(flannel, "node1")
    said = flannel.agents["node1"].said()
    assert [line for line in said.splitlines() if "put neighbour" in line] == []


def test_etcd_is_down_and_the_agent_restarts(flannel):
    """The agent serves by what it remembers, configuration and nodes; then it follows again."""
    flannel.end_flanneld("node1")
    flannel.start_agent("node1")
    with steps(flannel) as flows:
        with flows.step("etcd ends"):
            flannel.etcd.close()
        with flows.step("the agent restarts"):
            flannel.end_agent("node1")
            # Programs that were not compiled anew serve at once; here a pod's state is lost too.
            flannel.start_agent("node1")
        with flannel.verdicts("node1") as seen, flows.step("without etcd"):
            pass
        with flows.step("etcd returns"):
            flannel.etcd.up()
            change_mac(flannel, "node3")
        assert (flows.lost[:-1], flows.faults) == ([], [])
    assert seen["from_pod", "encapsulated"] > 0
    wait_for(
        lambda: shown(flannel, "node1") == golden(flannel, "node1"), "node3's news", seconds=15.0
    )
