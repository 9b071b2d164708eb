# SPDX-License-Identifier: Apache-2.0
"""The tunnel's packets are kept out of conntrack, and no rule of the node costs one for that."""

from __future__ import annotations

import json
import os
import signal

import pytest

from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for

NODES = ("node1", "node2")
OPEN = """\
table inet strict {
	chain input {
		type filter hook input priority 0; policy accept;
		udp dport 8472 ct state new accept
	}
}
"""
CLOSE = ("nft", "add", "rule", "inet", "strict", "input", "udp", "dport", "8472", "drop")
PINGS = 200


@pytest.fixture(scope="module")
def pair(make_module_lab):
    """Two nodes whose packets all take the kernel path."""
    made = make_module_lab(nodes=2, pods_per_node=1, kernel_only=0)
    for node in NODES:
        made.ask(node, op="bypass", enabled=False)
    return made


def state(lab, node):
    """What the agent says of the tunnel's packets."""
    return lab.ask(node, op="status")["status"]["notrack"]


def await_on(lab):
    """Wait until both nodes leave the tunnel untracked."""
    for node in NODES:
        wait_for(lambda node=node: state(lab, node) == "on", f"the rules of {node}")


def entries(lab, node):
    """How many entries of tunnels conntrack has on a node."""
    listed = lab.exec(node, "conntrack", "-L", "-p", "udp", "--dport", "8472").stdout
    return len(listed.splitlines())


def ping(lab, count=PINGS):
    """Ping another node's pod, beside the block."""
    return lab.spawn(
        "node1-pod1",
        *("ping", "-q", "-i", "0.005", "-W", "1", "-c", str(count), lab.address("node2-pod1")),
        stdout=-1,
    )


def answered(process):
    """How many pings were."""
    text, _ = process.communicate(timeout=20)
    return int(text.split(" received")[0].split()[-1])


def table(lab, node):
    """The set's elements as nft lists them; None: there is no table."""
    listed = lab.exec(node, "nft", "-j", "list", "ruleset").stdout
    parts = json.loads(listed)["nftables"]
    sets = (part["set"] for part in parts if "set" in part)
    return next((one.get("elem", []) for one in sets if one["table"] == "vxlane"), None)


def test_tunnels_leave_no_entry(pair):
    """Pings by the kernel path make none of the tunnel's entries, the pods' own are as ever."""
    await_on(pair)

    def leaves_none():
        for node in NODES:
            pair.exec(node, "conntrack", "-F")  # what went before the rules held
        with ping(pair, 20) as process:
            assert answered(process) == 20
        return [entries(pair, node) for node in NODES] == [0, 0]

    # While the node's own start still changes rules, tunnels are tracked for 2 s each time.
    wait_for(leaves_none, "tunnels without entries", seconds=20)
    for node in NODES:
        assert "type=8" in pair.exec(node, "conntrack", "-L", "-p", "icmp").stdout


def test_a_rule_for_new_packets_costs_none(pair):
    """A firewall that lets only NEW packets of the tunnel in is put up under traffic, and taken
    down: none is lost, for conntrack sees them again, an entry for each direction on each node.
    """
    await_on(pair)
    with ping(pair) as process:
        for node in NODES:
            pair.exec(node, "nft", "-f", "-", stdin=OPEN)
            # At once, which is long before a person's next command.
            wait_for(lambda node=node: table(pair, node) == [], "conntrack's view of tunnels")
            pair.exec(node, *CLOSE)
        assert answered(process) == PINGS
    assert all(entries(pair, node) == 2 for node in NODES)
    for node in NODES:
        wait_for(lambda node=node: "nft inet strict input" in state(pair, node), "the reason")
    with ping(pair) as process:
        for node in NODES:
            pair.exec(node, "nft", "delete", "table", "inet", "strict")
        await_on(pair)
        assert answered(process) == PINGS


def test_stock_nodes_lose_none_either(kernel_lab):
    """The same firewall on nodes without vxlane: the comparison that the test above stands on."""
    for node in NODES:
        kernel_lab.exec(node, "conntrack", "-F")  # another test's may be there for two minutes
    with ping(kernel_lab, 100) as process:
        for node in NODES:
            kernel_lab.exec(node, "nft", "-f", "-", stdin=OPEN)
            kernel_lab.exec(node, *CLOSE)
        assert answered(process) == 100
    for node in NODES:
        assert entries(kernel_lab, node) == 2
        kernel_lab.exec(node, "nft", "delete", "table", "inet", "strict")


def test_the_rules_go_with_the_agent(pair):
    """SIGTERM and detach leave none. After SIGKILL they run out, and the next agent takes them away
    if it is told to.
    """
    await_on(pair)
    os.kill(pair.agent_pid("node1"), signal.SIGTERM)
    pair.kill_agent("node2")
    (held,) = table(pair, "node2")
    assert held["elem"]["expires"] <= 30
    wait_for(lambda: pair.agent_pid("node1") is None, "the agent's end")
    assert table(pair, "node1") is None
    pair.start_agent("node2", "--no-notrack")
    assert (table(pair, "node2"), state(pair, "node2")) == (None, "off")
    pair.start_agent("node1")
    wait_for(lambda: table(pair, "node1"), "the rules of node1")
    pair.kill_agent("node1")
    env = {"VXLANE_STATE_DIR": str(pair.node("node1").directory)}
    pair.exec("node1", program("vxlane"), "detach", env=env)
    assert table(pair, "node1") is None
