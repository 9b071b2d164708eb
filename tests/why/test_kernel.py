# SPDX-License-Identifier: Apache-2.0
"""What the kernel is asked: whether the way to a peer is the one that the programs know."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from flowfacts import NODE, PEER, PEER_NODE
from standing import entered

from vxlane.why.kernel import Kernel

ROUTER = IPv4Address("192.168.77.99")


@pytest.fixture
def kernel(make_netns):
    """Asks a namespace with a NIC on the peer's link."""
    with entered(make_netns("why")):
        ip("link add nic type bridge", f"address add {NODE}/24 dev nic", "link set nic up")
        with contextlib.closing(Kernel(8472)) as made:
            yield made


def ip(*commands):
    """Run `ip` commands."""
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def known():
    """The peer with the NIC as the programs know it."""
    return replace(PEER, ifindex=socket.if_nametoindex("nic"))


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


def test_a_veth_that_is_gone(kernel):
    """Of a pod whose veth is gone no MAC is known, and nothing shapes it."""
    assert (kernel.mac(77), kernel.qdisc(77)) == (None, "noqueue")
