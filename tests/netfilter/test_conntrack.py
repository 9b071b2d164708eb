# SPDX-License-Identifier: Apache-2.0
"""conntrack's entries open, close and age as they would without a bypass."""

from __future__ import annotations

import collections
import contextlib
import re
import socket
import time

import pytest
from dialogue import PORT, Call, answered, beating, call, pour, serving
from kubeproxy import dropping_invalid
from paths import STALL, approved_ports, bypassed, ruleset

from vxlane.errors import LabError
from vxlane.lab.waiting import wait_for

NODES = ("node1", "node2")
BUSY = {"size": 40000, "pause": 0.03}
CLIENT, SERVER = "node1-pod1", "node2-pod1"
MASQUERADED = "10.42.1.0"
"""What another node sees the client as when its own gives it an address."""


def states(lab, node):
    """How many of the client's TCP connections conntrack has in which state."""
    listed = lab.exec(node, "conntrack", "-L", "-p", "tcp").stdout
    sources = f"src=({lab.address(CLIENT)}|{MASQUERADED}) "
    found = re.findall(rf"^tcp +6 \d+ (\w+) {sources}", listed, re.MULTILINE)
    return collections.Counter(state for state, _ in found)


def left(lab, server, *calls):
    """What entries the calls leave on the nodes.

    The agent tells conntrack of resets once a second, and later where the machine is busy.
    """
    for node in NODES:
        lab.exec(node, "conntrack", "-F")
    with serving(lab, server):
        answered(call(lab, CLIENT, *calls), *calls)
    time.sleep(1.5)
    with contextlib.suppress(LabError):  # Whether one may stay is for the comparison to say.
        wait_for(lambda: not any(states(lab, node)["ESTABLISHED"] for node in NODES), "all ends")
    return {node: states(lab, node) for node in NODES}


def alike(ours, theirs):
    """Whether on each node the states are the same, and their numbers within 5 %."""
    return all(
        ours[node].keys() == theirs[node].keys()
        and all(abs(ours[node][state] - n) <= n / 20 for state, n in theirs[node].items())
        for node in NODES
    )


def recorded(lab, node):
    """The TCP flows of the server's port that have a record."""
    with lab.maps(node) as maps:
        return {
            flow.tuple
            for flow in maps.flows()
            if flow.tuple.protocol == socket.IPPROTO_TCP
            and PORT in {flow.tuple.local_port, flow.tuple.remote_port}
        }


@pytest.mark.parametrize(
    ("server", "count"),
    [
        ("node2-pod1", 2000),
        ("node1-pod2", 500),
        pytest.param("node2-pod1", 10000, marks=pytest.mark.full),
        pytest.param("node1-pod2", 10000, marks=pytest.mark.full),
    ],
)
def test_short_connections(lab, kernel_lab, server, count):
    """Bypassed connections that end leave the entries that they leave without vxlane, and no
    record.
    """
    wanted = Call(lab.address(server), count=count, at_once=50, rounds=3, port=14000)
    before = {node: recorded(lab, node) for node in NODES}
    with lab.verdicts("node1") as seen:
        ours = left(lab, server, wanted)
    assert sum(bypassed(seen).values()) >= 3 * count
    assert [recorded(lab, node) - there for node, there in before.items()] == [set(), set()]
    theirs = left(kernel_lab, server, wanted)
    assert theirs["node1"] == {"TIME_WAIT": count}
    assert alike(ours, theirs)


@pytest.mark.parametrize("server", ["node2-pod1", "node1-pod2"], ids=["another-node", "same-node"])
def test_resets(lab, kernel_lab, server):
    """1,000 bypassed connections that end in a RST, from either side, are closed in conntrack.

    Their RSTs are out of the windows that conntrack saw, and yet not dropped as INVALID.
    """
    address, common = lab.address(server), {"count": 500, "at_once": 50, "rounds": 3}
    by_client = Call(address, end="client resets", port=10000, **common)
    by_server = Call(address, end="server resets", port=20000, **common)
    with lab.verdicts("node1") as seen, dropping_invalid(lab) as dropped:
        ours = left(lab, server, by_client, by_server)
    assert sum(bypassed(seen).values()) >= 3 * 1000
    assert dropped == [0, 0]
    theirs = left(kernel_lab, server, by_client, by_server)
    assert theirs["node1"] == {"CLOSE": 1000}
    assert alike(ours, theirs)


def test_windows_that_move_unseen(quick_lab):
    """Megabytes pass between two looks of conntrack, and it finds none of them INVALID."""
    lab, wanted = quick_lab, Call(quick_lab.address(SERVER), count=20, rounds=150, **BUSY)
    with dropping_invalid(lab) as dropped, serving(lab, SERVER), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, wanted)
    answered(reports, wanted)
    assert bypassed(seen)
    assert seen["from_pod", "flow_aged"] >= 20
    assert reports[0].longest() < STALL
    assert dropped == [0, 0]


@pytest.mark.full
def test_reset_that_looks_old(lab):
    """A RST that is half the sequence space ahead of what conntrack saw reaches the other end."""
    with dropping_invalid(lab) as dropped, lab.verdicts("node1") as seen:
        assert pour(lab, CLIENT, SERVER, (1 << 31) + (1 << 28)) == "reset"
    assert dropped == [0, 0]
    # It took less than `revalidate`: conntrack saw the beginning and the end.
    assert ("from_pod", "flow_aged") not in seen
    assert bypassed(seen)


def test_answers_that_never_come(lab):
    """A TCP connection whose answers netfilter drops is not bypassed, in neither direction."""
    address = lab.address(SERVER)
    answers = ["FORWARD", "-s", address, "-p", "tcp", "--tcp-flags", "SYN", "NONE", "-j", "DROP"]
    with serving(lab, SERVER):
        with ruleset(lab, "node1"):
            lab.exec("node1", "iptables", "-I", *answers)
        with lab.verdicts("node1") as seen, beating(lab, CLIENT, "tcp", address):
            time.sleep(2)
        with ruleset(lab, "node1"):
            lab.exec("node1", "iptables", "-D", *answers)
    assert bypassed(seen) == {}
    # The rule tells SYN and SYN-ACK, which pass, from what comes after them.
    assert seen["from_pod", "judged"] >= 2


def test_connection_that_begins_anew(lab):
    """When a pod has lost a connection silently and opens it anew, conntrack sees all of that."""
    address, port, end = lab.address(SERVER), 30000, "OUTPUT -p tcp --tcp-flags RST RST -j DROP"
    with serving(lab, SERVER):
        for pod in (CLIENT, SERVER):
            lab.exec(pod, "iptables", "-I", *end.split())
        with beating(lab, CLIENT, "tcp", address, source=port) as heard:
            heard.await_more()
            for pod in (CLIENT, SERVER):
                lab.exec(pod, "ss", "--kill", "--tcp", "state", "established")
        for pod in (CLIENT, SERVER):
            lab.exec(pod, "iptables", "-D", *end.split())
        assert port in approved_ports(lab, "node1", CLIENT)
        with beating(lab, CLIENT, "tcp", address, source=port) as heard:
            heard.await_more()
            again = [entry_state(lab, node, port) for node in NODES]
    assert again == ["ESTABLISHED", "ESTABLISHED"]


def entry_state(lab, node, port):
    """What conntrack on a node takes the client's connection from `port` for."""
    argv = ["conntrack", "-L", "-p", "tcp", "-s", lab.address(CLIENT), "--sport", str(port)]
    return lab.exec(node, *argv).stdout.split()[3]
