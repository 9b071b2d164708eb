# SPDX-License-Identifier: Apache-2.0
"""What the kernel is asked: whether the way to a peer is the one that the programs know."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from flowfacts import NODE, PEER, PEER_NODE
from standing import entered

from vxlane.datapath.programs import Constants
from vxlane.why import node
from vxlane.why.kernel import Kernel

PORT = 8999
ROUTER = IPv4Address("192.168.77.99")


@pytest.fixture
def kernel(make_netns):
    """Asks a namespace with a NIC on the peer's link."""
    with entered(make_netns("why")):
        ip("link add nic type bridge", f"address add {NODE}/24 dev nic", "link set nic up")
        with contextlib.closing(Kernel(PORT)) as made:
            yield made


def ip(*commands):
    """Run `ip` commands."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def known():
    """The peer with the NIC as the programs know it."""
    return replace(PEER, ifindex=socket.if_nametoindex("nic"))


def test_the_nodes_own_addresses(kernel):
    """Each is told with its device, also a second one of a device; others have none."""
    ip(f"address add {ROUTER}/24 dev nic")
    assert [kernel.holder(each) for each in (NODE, ROUTER, PEER_NODE)] == ["nic", "nic", ""]


def test_the_way_that_is_known(kernel):
    """Nothing is said of a route that leads where the programs send."""
    assert kernel.strayed(known(), NODE) == ""


def test_another_next_hop(kernel):
    """A route by a router is told, with what the programs know."""
    ip(f"route add {PEER_NODE} via {ROUTER}")
    assert kernel.strayed(known(), NODE) == (
        f"the route to it leads to {ROUTER} on nic, and the programs know {PEER_NODE} on nic"
    )


def test_no_route(kernel):
    """That there is no route is told."""
    ip(f"route add unreachable {PEER_NODE}")
    assert kernel.strayed(known(), NODE) == f"no route to {PEER_NODE} (EHOSTUNREACH)"


def test_a_rule_by_another_port(kernel):
    """A rule for packets to another port than the one that was given is not followed."""
    ip("rule add ipproto udp dport 8472 unreachable")
    assert kernel.strayed(known(), NODE) == ""


def test_a_rule_by_the_programs_port(kernel):
    """A rule for packets to the port that was given is followed."""
    ip(f"rule add ipproto udp dport {PORT} unreachable")
    assert kernel.strayed(known(), NODE).startswith("no route")


def test_the_port_is_the_programs(monkeypatch, tmp_path):
    """The port is the one that the pinned programs were loaded with."""
    given = []
    monkeypatch.setattr(node, "loaded_constants", lambda _: Constants(port=PORT))
    monkeypatch.setattr(node, "open_maps", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(node, "Kernel", lambda port: given.append(port) or io.StringIO())
    monkeypatch.setattr(node, "Reader", lambda *_: None)
    with node.opened(tmp_path):
        assert given == [PORT]


def test_a_veth_that_is_gone(kernel):
    """Of a pod whose veth is gone no MAC is known, and nothing shapes it."""
    assert (kernel.mac(77), kernel.qdisc(77)) == (None, "noqueue")
