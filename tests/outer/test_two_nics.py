# SPDX-License-Identifier: Apache-2.0
"""With two NICs on the underlay each flow leaves by the one that the kernel chose for it."""

from __future__ import annotations

import contextlib
import json

import pytest
from oneway import COUNT, by_both, flow, fresh_port, kernel_path

from vxlane.datapath.abi import ABI
from vxlane.lab.plan import switch_name
from vxlane.lab.underlay import ip
from vxlane.lab.waiting import wait_for

FLOWS = 16


@pytest.fixture(scope="module")
def macs(pair):
    """The MACs of node1's eth0 and of an eth1 that it gets."""
    switch, node = switch_name(pair.lab.name), pair.netns("node1")
    ip(switch, f"link add node1-second type veth peer name eth1 netns {node}")
    ip(switch, "link set node1-second master br0 up")
    ip(node, "link set eth1 up")
    pair.exec("node1", "sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1")
    found = [json.loads(ip(node, f"-j link show {nic}"))[0]["address"] for nic in ("eth0", "eth1")]
    yield [bytes.fromhex(mac.replace(":", "")) for mac in found]
    ip(node, "link delete eth1")


@contextlib.contextmanager
def routes(pair, *commands):
    """Routes of node1 inside, taken back in reverse; the agent has noticed both."""
    done = []
    try:
        for command in commands:
            ip(pair.netns("node1"), command.format(node2=pair.address("node2")))
            done.append(command)
        pair.ask("node1", op="status")
        yield
    finally:
        for command in reversed(done):
            back = command.replace(" add ", " delete ", 1)
            ip(pair.netns("node1"), back.format(node2=pair.address("node2")))
        pair.ask("node1", op="status")


def stands_on(pair, nic):
    """Whether to_nic stands on a NIC of node1."""
    index = json.loads(ip(pair.netns("node1"), f"-j link show {nic}"))[0]["ifindex"]
    return (pair.node("node1").directory / f"bpf/{ABI}/link-to_nic-{index}").exists()


def test_a_flow_stays_on_its_nic(pair, macs):
    """Of flows that ECMP spreads over two NICs each is bypassed, by the NIC that was its own."""
    way = "route add {node2}/32 nexthop dev eth0 nexthop dev eth1"
    ports = [fresh_port() for _ in range(FLOWS)]
    with routes(pair, way):
        wait_for(lambda: stands_on(pair, "eth1"), "to_nic on the second NIC")
        with kernel_path(pair):
            kernel = [nics_of(pair, port, 5) for port in ports]
        with pair.verdicts("node1") as seen:
            bypass = [nics_of(pair, port, 5) for port in ports]
    assert {mac for each in kernel for mac in each} == set(macs)
    assert all(len(each) == 1 for each in kernel)
    assert bypass == kernel
    assert seen["from_pod", "encapsulated"] == 4 * FLOWS


def nics_of(pair, port, count):
    """The source MACs of a flow's frames on the wire.

    The VXLAN device keeps the route that it found last for a peer, on each CPU, for all flows; a
    flush has it look again, by the hash of this flow.
    """
    ip(pair.netns("node1"), "route flush cache")
    with flow(pair, port) as sent:
        outcome = sent.send(count)
    assert outcome.arrived == count
    return outcome.macs


def test_a_mark_leads_to_another_nic(pair, macs):
    """Marked tunnels that a rule sends by the second NIC go by it, and by the kernel path."""
    mark = ["-p", "udp", "--dport", "8472", "-j", "MARK", "--set-mark", "7"]
    with routes(pair, "route add {node2}/32 dev eth1 table 77", "rule add fwmark 7 table 77"):
        pair.exec("node1", "iptables", "-w", "-t", "mangle", "-A", "OUTPUT", *mark)
        try:
            pair.ask("node1", op="status")
            kernel, bypass = by_both(pair, fresh_port())
        finally:
            pair.exec("node1", "iptables", "-w", "-t", "mangle", "-D", "OUTPUT", *mark)
    assert kernel.macs == {macs[1]}
    assert kernel.arrived == COUNT
    assert bypass == kernel


def test_the_route_moves(pair, macs):
    """A bypassed flow follows its route to the other NIC with the packet after the change."""
    port = fresh_port()
    with flow(pair, port) as sent:
        assert sent.send(10).macs == {macs[0]}
        with routes(pair, "route add {node2}/32 dev eth1"):
            assert sent.send(10).macs == {macs[1]}
        assert sent.send(10).macs == {macs[0]}
