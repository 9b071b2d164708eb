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
}
TABLE = """\
table inet follows {{
	chain forward {{
		type filter hook forward priority 0; policy accept; {rule}
	}}
}}
"""


@contextlib.contextmanager
def dropping(lab, server, rule):
    """Have node1 drop what the client says behind its SYN."""
    pair = f"ip saddr {lab.address(CLIENT)} ip daddr {lab.address(server)}"
    with ruleset(lab, "node1"):
        lab.exec("node1", "nft", "-f", "-", stdin=TABLE.format(rule=rule.format(pair=pair)))
    try:
        yield
    finally:
        with ruleset(lab, "node1"):
            lab.exec("node1", "nft", "delete", "table", "inet", "follows")


def is_heard(lab, server):
    """Whether a server hears what a client says behind its SYN, which is answered."""
    with (
        socket_in(lab.netns(server), socket.SOCK_STREAM) as listener,
        socket_in(lab.netns(CLIENT), socket.SOCK_STREAM) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen()
        client.settimeout(10)
        client.connect((lab.address(server), PORT))
        client.sendall(b"let me in")
        return bool(select.select([listener], [], [], 1)[0])


@pytest.mark.parametrize("server", [SERVER, NEIGHBOUR], ids=["another-node", "same-node"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_stays_dropped(lab, kernel_lab, server, rule):
    """The server hears nothing. Without the rule it hears all, by the bypass."""
    assert is_heard(lab, server)
    for one in (kernel_lab, lab):
        with dropping(one, server, rule):
            assert not is_heard(one, server)
    with lab.verdicts("node1") as seen:
        assert is_heard(lab, server)
    assert bypassed(seen)
    assert not came(seen, "from_pod", "flow_half")
