# SPDX-License-Identifier: Apache-2.0
"""What the receiving node refuses of a tunnel, its pods don't get by the bypass either."""

from __future__ import annotations

import contextlib

import pytest
from oneway import COUNT, by_both, flow, fresh_port, kernel_path

VXLAN = "-p udp --dport 8472"
IN = "src {node1} dst {node2} proto udp dport 8472 dir in"
ROWS = {
    "IPsec demands ESP": (
        f"ip xfrm policy add {IN} tmpl proto esp mode transport level required",
        f"ip xfrm policy delete {IN}",
    ),
    "IPsec blocks": (
        f"ip xfrm policy add {IN} action block",
        f"ip xfrm policy delete {IN}",
    ),
    "INPUT drops": (
        f"iptables -w -A INPUT {VXLAN} -s {{node1}} -j DROP",
        f"iptables -w -D INPUT {VXLAN} -s {{node1}} -j DROP",
    ),
    "raw PREROUTING drops": (
        f"iptables -w -t raw -A PREROUTING {VXLAN} -j DROP",
        f"iptables -w -t raw -D PREROUTING {VXLAN} -j DROP",
    ),
    "FORWARD drops": (
        "iptables -w -I FORWARD -s 10.42.1.0/24 -j DROP",
        "iptables -w -D FORWARD -s 10.42.1.0/24 -j DROP",
    ),
}


@contextlib.contextmanager
def refused(pair, row):
    """Have node2 refuse inside."""
    up, down = (
        command.format(node1=pair.address("node1"), node2=pair.address("node2")) for command in row
    )
    pair.exec("node2", *up.split())
    try:
        # One thread answers and reads events: they are read when it has answered.
        pair.ask("node2", op="status")
        yield
    finally:
        pair.exec("node2", *down.split())
        pair.ask("node2", op="status")


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_refused_before(pair, row):
    """A tunnel that the node refuses from the beginning reaches no pod."""
    with refused(pair, row):
        kernel, bypass = by_both(pair, fresh_port())
    assert kernel.arrived == bypass.arrived == 0


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_refused_meanwhile(pair, row):
    """A bypassed flow ends with the packet that comes after the refusal, and goes on after it."""
    port = fresh_port()
    with kernel_path(pair), flow(pair, port) as sent, refused(pair, row):
        kernel = sent.send(10)
    assert kernel.arrived == 0
    with flow(pair, port) as sent:
        with pair.verdicts("node2") as seen:
            assert sent.send().arrived == COUNT
        assert seen["from_nic", "decapsulated"] == COUNT - 1
        with refused(pair, row):
            assert sent.send(10).arrived == 0
        assert sent.send(10).arrived == 10
