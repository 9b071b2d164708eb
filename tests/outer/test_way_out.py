# SPDX-License-Identifier: Apache-2.0
"""The outer packet goes where the kernel path sends it, as the kernel path sends it, or not at all.

Each row is a set-up that a node may have, made before the flow begins or in its midst.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

import pytest
from oneway import COUNT, by_both, flow, fresh_port, kernel_path

from vxlane.lab.underlay import ip

VXLAN = "-p udp --dport 8472"
OUT = "src {node1} dst {node2} proto udp dport 8472 dir out"


@dataclass(frozen=True, slots=True)
class Row:
    """Commands on node1 that set something up, and those that take it back."""

    up: tuple[str, ...]
    down: tuple[str, ...]
    arrives: bool
    """Whether the kernel path delivers."""


ROWS = {
    "IPsec demands ESP": Row(
        (f"ip xfrm policy add {OUT} tmpl proto esp mode transport level required",),
        (f"ip xfrm policy delete {OUT}",),
        arrives=False,
    ),
    "IPsec blocks": Row(
        (f"ip xfrm policy add {OUT} action block",),
        (f"ip xfrm policy delete {OUT}",),
        arrives=False,
    ),
    "OUTPUT drops": Row(
        (f"iptables -w -A OUTPUT {VXLAN} -d {{node2}} -j DROP",),
        (f"iptables -w -D OUTPUT {VXLAN} -d {{node2}} -j DROP",),
        arrives=False,
    ),
    "POSTROUTING drops": Row(
        (f"iptables -w -t mangle -A POSTROUTING {VXLAN} -j DROP",),
        (f"iptables -w -t mangle -D POSTROUTING {VXLAN} -j DROP",),
        arrives=False,
    ),
    "a mark leads to no route": Row(
        (
            f"iptables -w -t mangle -A OUTPUT {VXLAN} -j MARK --set-mark 7",
            "ip rule add fwmark 7 prohibit",
        ),
        (
            "ip rule delete fwmark 7 prohibit",
            f"iptables -w -t mangle -D OUTPUT {VXLAN} -j MARK --set-mark 7",
        ),
        arrives=False,
    ),
    "a rule leads to no route": Row(
        ("ip rule add to {node2} ipproto udp dport 8472 prohibit",),
        ("ip rule delete to {node2} ipproto udp dport 8472 prohibit",),
        arrives=False,
    ),
    "POSTROUTING sets the DSCP": Row(
        (f"iptables -w -t mangle -A POSTROUTING {VXLAN} -j DSCP --set-dscp 10",),
        (f"iptables -w -t mangle -D POSTROUTING {VXLAN} -j DSCP --set-dscp 10",),
        arrives=True,
    ),
    "OUTPUT sets the TTL": Row(
        (f"iptables -w -t mangle -A OUTPUT {VXLAN} -j TTL --ttl-set 9",),
        (f"iptables -w -t mangle -D OUTPUT {VXLAN} -j TTL --ttl-set 9",),
        arrives=True,
    ),
    "OUTPUT translates the destination": Row(
        (f"iptables -w -t nat -A OUTPUT {VXLAN} -d {{node2}} -j DNAT --to 192.168.77.212",),
        (f"iptables -w -t nat -D OUTPUT {VXLAN} -d {{node2}} -j DNAT --to 192.168.77.212",),
        arrives=True,
    ),
    "POSTROUTING translates the source": Row(
        (f"iptables -w -t nat -A POSTROUTING {VXLAN} -j SNAT --to 192.168.77.211",),
        (f"iptables -w -t nat -D POSTROUTING {VXLAN} -j SNAT --to 192.168.77.211",),
        arrives=True,
    ),
    "the route's gateway is an IPv6 neighbour": Row(
        (
            "ip -6 neighbour replace fe80::77 lladdr {mac2} dev eth0",
            "ip route replace {node2}/32 via inet6 fe80::77 dev eth0",
        ),
        (
            "ip route delete {node2}/32",
            "ip -6 neighbour delete fe80::77 dev eth0",
        ),
        arrives=True,
    ),
    "the route has a tunnel of its own": Row(
        (
            "ip link add vx0 type vxlan external dstport 4790",
            "ip link set vx0 up",
            "ip route add {node2}/32 encap ip id 77 dst 192.168.77.212 dev vx0",
        ),
        ("ip link delete vx0",),
        arrives=True,
    ),
}


for _state, _finished in (("off", "finished by the kernel"), ("on", "left to the NIC")):
    ROWS[f"checksums are {_finished}"] = Row(
        (f"ethtool -K flannel.1 tx-checksum-ip-generic {_state}",),
        ("ethtool -K flannel.1 tx-checksum-ip-generic on",),
        arrives=True,
    )


@pytest.fixture(scope="module", autouse=True)
def aliases(pair):
    """Second addresses of the nodes, which NAT may turn theirs into."""
    for number in (1, 2):
        pair.exec(f"node{number}", *f"ip address add 192.168.77.21{number}/24 dev eth0".split())
    # The other end of the tunnel that a route of node1 may have.
    for command in (
        "ip link add vx0 type vxlan external dstport 4790",
        "ip link set vx0 up",
        "sysctl -qw net.ipv4.conf.vx0.rp_filter=0",
    ):
        pair.exec("node2", *command.split())


@contextlib.contextmanager
def standing(pair, row):
    """Set up a row inside."""
    names = {
        "node1": pair.address("node1"),
        "node2": pair.address("node2"),
        "mac2": json.loads(ip(pair.netns("node2"), "-j link show eth0"))[0]["address"],
    }
    for command in row.up:
        pair.exec("node1", *command.format(**names).split())
    try:
        yield
    finally:
        for command in row.down:
            pair.exec("node1", *command.format(**names).split())
        # A translation outlives its rule with the entry of the connection.
        pair.exec("node1", "conntrack", "-F")
        pair.ask("node1", op="status")


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_set_up_before(pair, row):
    """What is set up before the flow, the bypass heeds as the kernel path does."""
    with standing(pair, row):
        pair.ask("node1", op="status")
        kernel, bypass = by_both(pair, fresh_port())
    assert kernel.arrived == (COUNT if row.arrives else 0)
    assert bypass == kernel


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_set_up_meanwhile(pair, row):
    """What is set up while a flow is bypassed, the next packet heeds."""
    port = fresh_port()
    with kernel_path(pair), flow(pair, port) as sent:
        sent.send(1)
        with standing(pair, row):
            kernel = sent.send()
    with flow(pair, port) as sent:
        with pair.verdicts("node1") as seen:
            assert sent.send().arrived == COUNT
        assert seen["from_pod", "encapsulated"] == COUNT - 1, seen
        with standing(pair, row):
            # One thread answers and reads events: they are read when it has answered.
            pair.ask("node1", op="status")
            bypass = sent.send()
    assert bypass == kernel


def test_checksums_that_the_device_may_not_leave(pair):
    """With the overlay's offload off each inner checksum on the wire is right, by both ways."""
    with standing(pair, ROWS["checksums are finished by the kernel"]):
        kernel, bypass = by_both(pair, fresh_port())
    assert kernel.finished == bypass.finished == COUNT
