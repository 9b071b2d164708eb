# SPDX-License-Identifier: Apache-2.0
"""Rules that let a SYN pass and drop what its sender says next hold with the bypass as without."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest
from dialogue import PORT
from paths import bypassed, came, ruleset
from taps import socket_in
from test_silence import CLIENT, SERVER

NEIGHBOUR = "node1-pod2"
RULES = {
    "established": "{pair} ct state established drop",
    "accepted": "{pair} ct state new accept; {pair} drop",
    "direction": "{pair} ct direction original ct state != new drop",
    "marked": "{pair} ct mark 7 drop; {pair} tcp flags & (syn | ack) == syn ct mark set 7",
}
OF_ANSWERS = {
    "assured": "{pair} ct status assured drop",
}
"""What lets a SYN-ACK pass and drops what its sender says next."""
FORWARD, RAW = ("forward", 0), ("prerouting", -300)
BY_FLAGS = {
    "map-behind-flags": (
        RAW,
        "tcp flags & syn != syn {from} ip daddr vmap {{ {receiver} : drop }}",
    ),
    "map-of-flags": (RAW, "{pair} tcp flags & (syn | rst) vmap {{ 0x0 : drop, syn : accept }}"),
    "accepted": (RAW, "{pair} tcp flags & syn == syn accept; {pair} drop"),
    "returned": (RAW, "{pair} tcp flags & syn == syn return; {pair} drop"),
    "forwarded": (FORWARD, "{pair} tcp flags & syn == syn accept; {pair} drop"),
}
TABLE = """\
table inet follows {{
	chain c {{
		type filter hook {hook} priority {priority}; policy accept; {rule}
	}}
}}
"""


@contextlib.contextmanager
def dropping(lab, sender, receiver, rule, place=FORWARD):
    """Have node1 drop what one says to the other behind its SYN or SYN-ACK."""
    source, target = f"ip saddr {lab.address(sender)}", lab.address(receiver)
    words = {"from": source, "receiver": target, "pair": f"{source} ip daddr {target}"}
    hook, priority = place
    table = TABLE.format(hook=hook, priority=priority, rule=rule.format(**words))
    with ruleset(lab, "node1"):
        lab.exec("node1", "nft", "-f", "-", stdin=table)
    try:
        yield
    finally:
        with ruleset(lab, "node1"):
            lab.exec("node1", "nft", "delete", "table", "inet", "follows")


@contextlib.contextmanager
def connected(lab, server):
    """A socket that listens in `server`, and one of the client's that is connected to it."""
    with (
        socket_in(lab.netns(server), socket.SOCK_STREAM) as listener,
        socket_in(lab.netns(CLIENT), socket.SOCK_STREAM) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen()
        listener.settimeout(10)
        client.settimeout(10)
        client.connect((lab.address(server), PORT))
        yield listener, client


def is_heard(lab, server):
    """Whether a server hears what a client says behind its SYN, which is answered."""
    with connected(lab, server) as (listener, client):
        client.sendall(b"let me in")
        return bool(select.select([listener], [], [], 1)[0])


def is_answered(lab, server):
    """Whether a client hears what a server says behind its SYN-ACK."""
    with connected(lab, server) as (listener, client):
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"come in")
            return bool(select.select([client], [], [], 1)[0])


@pytest.mark.parametrize("server", [SERVER, NEIGHBOUR], ids=["another-node", "same-node"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_stays_dropped(lab, kernel_lab, server, rule):
    """The server hears nothing. Without the rule it hears all, by the bypass."""
    assert is_heard(lab, server)
    for one in (kernel_lab, lab):
        with dropping(one, CLIENT, server, rule):
            assert not is_heard(one, server)
    with lab.verdicts("node1") as seen:
        assert is_heard(lab, server)
    assert bypassed(seen)
    assert not came(seen, "from_pod", "flow_half")


@pytest.mark.parametrize("server", [SERVER, NEIGHBOUR], ids=["another-node", "same-node"])
@pytest.mark.parametrize("rule", OF_ANSWERS.values(), ids=OF_ANSWERS)
def test_no_answer_follows_a_syn_ack(lab, kernel_lab, server, rule):
    """The client hears nothing. Without the rule it hears all, by the bypass."""
    for one in (kernel_lab, lab):
        with dropping(one, server, CLIENT, rule):
            assert not is_answered(one, server)
    with lab.verdicts("node1") as seen:
        assert is_answered(lab, server)
    assert bypassed(seen)


@pytest.mark.parametrize("server", [SERVER, NEIGHBOUR], ids=["another-node", "same-node"])
@pytest.mark.parametrize(("place", "rule"), BY_FLAGS.values(), ids=BY_FLAGS)
def test_flags_do_not_speak_for_what_follows(lab, kernel_lab, server, place, rule):
    """What a rule drops behind a SYN or a SYN-ACK, told by its flags, stays dropped either way."""
    assert is_heard(lab, server)
    assert is_answered(lab, server)
    for one in (kernel_lab, lab):
        with dropping(one, CLIENT, server, rule, place):
            assert not is_heard(one, server)
        with dropping(one, server, CLIENT, rule, place):
            assert not is_answered(one, server)
