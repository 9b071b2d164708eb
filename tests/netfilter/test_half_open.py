# SPDX-License-Identifier: Apache-2.0
"""What two pods of a node make of a handshake by hand: netfilter lets pass what it lets pass on the
kernel path, and conntrack has the same states.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from ipaddress import IPv4Address

import pytest
from frames import ACK, FIN, RST, SYN, Frame, Tcp
from paths import bypassed, ruleset
from taps import Tap
from test_silence import CLIENT
from test_what_follows_a_syn import NEIGHBOUR

from vxlane.lab.waiting import wait_for

PORTS = 7001, 7002
STRICT = "ct state invalid drop; ct state new tcp flags & (syn | ack) != syn drop"
TABLES = {
    "forward": f"chain c {{ type filter hook forward priority 0; {STRICT}; }}",
    "input": "chain c { type filter hook input priority -400; tcp dport 7001-7002 drop; }",
}
SAID = {
    "client": {
        "syn": (SYN, 1000, 0),
        "rst": (RST, 1001, 0),
        "ack": (ACK, 1001, 5001),
        "fin": (FIN | ACK, 1001, 5001),
        "abort": (RST, 1002, 0),
        "last": (ACK, 1002, 5002),
        "again": (SYN, 90000, 0),
    },
    "server": {
        "syn-ack": (SYN | ACK, 5000, 1001),
        "answer": (ACK, 5001, 1001),
        "end": (FIN | ACK, 5001, 1002),
    },
}


class Pair:
    """A client and a server that write their segments themselves. Their kernels say nothing."""

    def __init__(self, lab):
        self._lab = lab
        self._pods = {"client": CLIENT, "server": NEIGHBOUR}
        self._taps = {end: Tap(lab.netns(pod), "eth0") for end, pod in self._pods.items()}
        self._macs = {end: _mac(lab, pod) for end, pod in self._pods.items()}

    def close(self):
        """Close the sockets."""
        for tap in self._taps.values():
            tap.close()

    def say(self, what):
        """One end says something. Whether the other one hears it, and the state of the entry."""
        frame, hearer = self.send(what)
        time.sleep(0.1)
        return frame in hearer.drain(), self.state()

    def send(self, what):
        """One end says something; the frame, and where it arrives."""
        end = next(end for end, said in SAID.items() if what in said)
        other = "server" if end == "client" else "client"
        frame = bytes(self._frame(end, other, *SAID[end][what]))
        self._taps[other].drain()
        self._taps[end].send(frame)
        time.sleep(0.01)
        return frame, self._taps[other]

    def _frame(self, end, other, flags, sequence, acknowledged):
        source, dest = PORTS if end == "client" else reversed(PORTS)
        return Frame(
            source_mac=self._macs[end],
            dest_mac=self._macs[other],
            source=IPv4Address(self._lab.address(self._pods[end])),
            destination=IPv4Address(self._lab.address(self._pods[other])),
            transport=Tcp(
                source=source, dest=dest, flags=flags, sequence=sequence, acknowledged=acknowledged
            ),
        )

    def state(self):
        """Of conntrack's entry; None: there is none."""
        listed = self._lab.exec("node1", "conntrack", "-L", "-p", "tcp", "--sport", str(PORTS[0]))
        found = re.search(r"^tcp +6 \d+ (\w+)", listed.stdout, re.MULTILINE)
        return found and found[1]


def _mac(lab, pod):
    [link] = json.loads(lab.exec(pod, "ip", "-j", "link", "show", "dev", "eth0").stdout)
    return link["address"]


@contextlib.contextmanager
def table(lab, place, chain):
    """Have rules in a table of their own."""
    lab.exec(place, "nft", "-f", "-", stdin=f"table inet half_open {{\n{TABLES[chain]}\n}}\n")
    try:
        yield
    finally:
        lab.exec(place, "nft", "delete", "table", "inet", "half_open")


@contextlib.contextmanager
def pair(lab):
    """The pair, which conntrack knows nothing of."""
    lab.exec("node1", "conntrack", "-F")
    with (
        table(lab, CLIENT, "input"),
        table(lab, NEIGHBOUR, "input"),
        contextlib.closing(Pair(lab)) as made,
    ):
        yield made


@pytest.mark.parametrize("early", ["ack", "answer"])
def test_what_comes_before_the_answer_opens_nothing(lab, kernel_lab, early):
    """Neither end's ACK does, and conntrack is shown the handshake behind it."""
    steps = ["syn", early, "syn-ack", "ack"]
    with pair(kernel_lab) as stock:
        theirs = [stock.say(step) for step in steps]
    with lab.verdicts("node1") as seen, pair(lab) as ours:
        assert [ours.say(step) for step in steps] == theirs
    assert theirs[-1] == (True, "ESTABLISHED")
    assert bypassed(seen)


def test_a_refusal_that_a_rule_drops(lab, kernel_lab):
    """Conntrack forgets the connection all the same, and nothing passes that is no part of one."""
    steps = ["syn", "rst", "syn-ack", "ack", "answer"]
    outcomes = []
    for one in (kernel_lab, lab):
        with contextlib.ExitStack() as stack:
            with ruleset(one, "node1"):
                stack.enter_context(table(one, "node1", "forward"))
            made = stack.enter_context(pair(one))
            outcomes.append([made.say(step) for step in steps])
    assert outcomes[0] == outcomes[1] == [(True, "SYN_SENT"), *[(False, None)] * 4]


def test_a_reset_ends_no_later_connection(lab, kernel_lab):
    """Though an ACK comes behind the RST that ends the record of a connection without one."""
    for one in (kernel_lab, lab):
        with pair(one) as made:
            for step in ("syn", "syn-ack", "ack", "fin", "end"):
                assert made.say(step)[0]
            for step in ("abort", "last", "again"):
                made.send(step)
            time.sleep(1.3)  # the agent tells conntrack of resets each second
            assert made.state() == "SYN_SENT"


@pytest.mark.parametrize("how", ["locked on", "learning off flood off"])
def test_a_port_of_the_bridge_that_lets_one_way_pass(lab, kernel_lab, how):
    """A locked port takes nothing in from whom the bridge does not know. Others may not be found by
    the bridge.
    """
    restricted = NEIGHBOUR if "locked" in how else CLIENT
    for one in (kernel_lab, lab):
        with restricting(one, restricted, how), pair(one) as made:
            assert made.say("syn") == (True, "SYN_SENT")
            assert not made.say("syn-ack")[0]


@contextlib.contextmanager
def restricting(lab, pod, how):
    """Have the bridge restrict a pod's port, and know nothing of who is there."""
    port = lab.pod(pod).veth
    link = ["bridge", "link", "set", "dev", port]
    lab.exec("node1", *link, "learning", "off", *how.replace("learning off", "").split())
    lab.exec("node1", "bridge", "fdb", "del", _mac(lab, pod), "dev", port, "master", check=False)
    if lab.agent_pid("node1") is not None:
        wait_for(lambda: _is_guarded(lab, pod), "the guard")
    try:
        yield
    finally:
        lab.exec("node1", *link, "learning", "on", "flood", "on", "locked", "off")
        if lab.agent_pid("node1") is not None:
            wait_for(lambda: not _is_guarded(lab, pod), "no guard")


def _is_guarded(lab, pod):
    with lab.maps("node1") as maps:
        return maps.pods()[lab.pod(pod).address].guard
