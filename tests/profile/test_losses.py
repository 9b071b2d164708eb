# SPDX-License-Identifier: Apache-2.0
"""Retransmits and unanswered SYNs that `vxlane profile` tells, against the kernel's own count."""

from __future__ import annotations

import sys
from pathlib import Path

from profilerun import profiling

from vxlane.lab import namespaces
from vxlane.lab.waiting import wait_for

STREAM = Path(__file__).parents[1] / "lab" / "stream.py"
KNOCK = "import socket; s = socket.socket(); s.settimeout(1.8); s.connect_ex(('10.42.2.200', 1))"
"""A SYN that nobody answers, and a second after a second."""
SLOWLY = "tbf rate 400bit burst 200 limit 20000"
"""50 bytes a second."""
FILL = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(bytes(140), ('10.42.2.200', 1))"


def retransmitted(lab, pod):
    """The segments that a pod's TCP has sent again, as the kernel counts them."""
    lines = lab.exec(pod, "cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def unacknowledged(lab, pod):
    """The connections that are closed and still wait for an answer to that."""
    states = "state fin-wait-1 state closing state last-ack"
    return lab.exec(pod, "ss", "-Htn", *states.split()).stdout


def test_retransmits_are_those_of_the_kernel(lab):
    """A super-packet that is sent again is as many retransmits as it has segments."""
    listen = [sys.executable, STREAM, "serve", "7301", "4000000"]
    connect = [sys.executable, STREAM, "connect", f"{lab.address('node2-pod1')}:7301", "4000000"]
    lossy = "table ip lossy { chain in { type filter hook input priority 0; tcp dport 7301"
    lossy += " numgen inc mod 10 == 5 drop; }; }"
    before = retransmitted(lab, "node1-pod1")
    lab.exec("node2-pod1", "nft", lossy)
    try:
        with lab.spawn("node2-pod1", *listen, stdout=-1) as server:
            assert server.stdout.readline() == "listening\n"
            with profiling(lab, "node1") as document:
                lab.exec("node1-pod1", *map(str, connect))
                # Its last packet may be lost too, and is then sent again without a process.
                wait_for(lambda: not unacknowledged(lab, "node1-pod1"), "its end", seconds=20)
    finally:
        lab.exec("node2-pod1", "nft", "delete table ip lossy")
    (lost,) = document["losses"]
    assert lost["retransmits"] == retransmitted(lab, "node1-pod1") - before > 0


def test_another_nodes_pods(lab, make_netns):
    """What another network on this machine sends again from a pod's address is not this node's."""
    elsewhere = make_netns("elsewhere")
    for line in (
        "ip link add deaf type veth peer name wall",
        "ip link set wall up",
        f"ip addr add {lab.address('node1-pod1')}/32 dev deaf",
        "ip link set deaf arp off up",
        "ip route add default dev deaf",
    ):
        namespaces.run(elsewhere, *line.split())
    with profiling(lab, "node1") as document:
        namespaces.run(elsewhere, sys.executable, "-c", KNOCK)
        lab.exec("node1-pod2", sys.executable, "-c", KNOCK)
    assert sum(row["unanswered_syns"] for row in document["losses"]) == 1


def test_what_could_not_be_sent_again(lab):
    """A packet that is still in the pod's own queue is not sent again, and not counted."""
    before = retransmitted(lab, "node1-pod1")
    lab.exec("node1-pod1", "tc", "qdisc", "add", "dev", "eth0", "root", *SLOWLY.split())
    try:
        with profiling(lab, "node1") as document:
            lab.exec("node1-pod1", sys.executable, "-c", FILL + "; " + KNOCK)
    finally:
        lab.exec("node1-pod1", "tc", "qdisc", "del", "dev", "eth0", "root")
    assert retransmitted(lab, "node1-pod1") == before
    assert document["losses"] == []
