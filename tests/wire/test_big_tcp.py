# SPDX-License-Identifier: Apache-2.0
"""BIG TCP: super-packets so long that no IP header can tell their length."""

import contextlib
import sys

import pytest
import transfer
from paths import ruleset
from wire import NEIGHBOUR, RECEIVER, SENDER

from vxlane.lab.traffic import Ends
from vxlane.lab.waiting import wait_for

BIG, LEGACY = 131072, 65536
LONGEST = 14 + 65535
"""Bytes of a frame whose IP header tells its length."""
MEGABYTES = 8
SERVICE = "10.96.0.77"
SET_SIZES = """
import socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
sizes = b"".join(struct.pack("=HHI", 8, kind, int(sys.argv[2])) for kind in (63, 64))
message = struct.pack("=BxHiII", 0, 0, index, 0, 0) + sizes
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
    netlink.send(struct.pack("=IHHII", 16 + len(message), 16, 5, 1, 0) + message)
    sys.exit(-struct.unpack_from("=i", netlink.recv(4096), 16)[0])
"""
"""`ip link set DEVICE gso_ipv4_max_size N gro_ipv4_max_size N`, which iproute2 has from 6.3 on."""


@contextlib.contextmanager
def big(lab, *devices):
    """Have devices, (place, name), make and take super-packets of more than 64 kB."""

    def let(size):
        for place, device in devices:
            lab.exec(place, sys.executable, "-c", SET_SIZES, device, str(size))
            # The kernel tells nobody of a size. Of a queue's length it does, and the agent looks.
            lab.exec(place, "ip", "link", "set", device, "txqueuelen", str(size >> 6))

    let(BIG)
    try:
        yield
    finally:
        let(LEGACY)


def agent_sees(lab, pod, size):
    """Wait until the programs are told what a pod's veth takes."""

    def told():
        with lab.maps("node1") as maps:
            return maps.pods()[lab.pod(pod).address].gso_size == size

    wait_for(told, f"the agent to see that {pod}'s veth takes {size} bytes")


def veth(lab, pod):
    """The host end of a pod's veth, as `big` wants it."""
    return pod.partition("-")[0], lab.pod(pod).veth


def near_transfer(wire):
    """Send data to the neighbour; (what was counted, the longest frame that the neighbour got)."""
    tap = wire.tap(NEIGHBOUR)
    tap.drain()
    with wire.lab.verdicts("node1") as moved:
        transfer.tcp(wire.ends(SENDER, NEIGHBOUR), MEGABYTES << 20)
    return moved, max(map(len, tap.drain()))


def test_to_peer(wire):
    """It has a verdict of its own, takes the kernel path, and all of it arrives.

    The rest of the connection is bypassed: what is shorter, and what comes back.
    """
    lab = wire.lab
    ends = [(pod, "eth0") for pod in (SENDER, RECEIVER)]
    with (
        big(lab, *ends, veth(lab, SENDER), veth(lab, RECEIVER)),
        lab.verdicts("node1", "node2") as moved,
    ):
        transfer.tcp(wire.ends(SENDER, RECEIVER), MEGABYTES << 20)
    assert moved["from_pod", "big_tcp"] > 0
    assert moved["from_pod", "malformed"] == 0
    assert moved["from_pod", "encapsulated"] > 0


def test_to_neighbour(wire):
    """To a neighbour whose veth takes it, it is bypassed whole, whatever the bridge takes.

    The kernel path hands it on whole, too.
    """
    lab = wire.lab
    with big(lab, (SENDER, "eth0"), veth(lab, NEIGHBOUR)):
        agent_sees(lab, NEIGHBOUR, BIG)
        wire.set_bypass(enabled=False)
        _, by_kernel = near_transfer(wire)
        wire.set_bypass(enabled=True)
        moved, by_bypass = near_transfer(wire)
    agent_sees(lab, NEIGHBOUR, LEGACY)
    assert LONGEST < by_kernel < BIG
    assert LONGEST < by_bypass < BIG
    others = {"switched", "tcp_control", "flow_unknown", "flow_half"}
    assert {verdict for program, verdict in moved if program == "from_pod"} <= others
    assert moved["from_pod", "switched"] > 0


def test_neighbour_takes_less(wire):
    """What the neighbour's veth does not take whole takes the kernel path, which cuts it.

    It renews the flow's approval: a connection may send nothing shorter.
    """
    with big(wire.lab, (SENDER, "eth0")):
        moved, longest = near_transfer(wire)
    assert longest <= LONGEST
    assert moved["from_pod", "big_tcp"] > 0
    # The last one may carry the FIN, which teaches nothing and so has no stamp.
    assert moved["to_pod", "no_stamp"] <= 1
    assert moved["to_pod", "learned"] + moved["to_pod", "no_stamp"] >= moved["from_pod", "big_tcp"]
    assert moved["to_pod", "changed"] == 0


def test_neighbour_takes_fewer_segments(wire):
    """The kernel path also cuts what has more segments than the neighbour's veth takes."""
    lab = wire.lab
    node, device = veth(lab, NEIGHBOUR)
    with big(lab, (SENDER, "eth0")):
        lab.exec(node, "ip", "link", "set", device, "gso_max_segs", "46")
        try:
            with big(lab, (node, device)):
                agent_sees(lab, NEIGHBOUR, BIG)
                moved, longest = near_transfer(wire)
        finally:
            lab.exec(node, "ip", "link", "set", device, "gso_max_segs", "65535")
    assert longest <= LONGEST
    assert moved["from_pod", "big_tcp"] > 0


@pytest.fixture
def service(wire):
    """An address at which node1's netfilter has the neighbour."""
    to_neighbour = ["-j", "DNAT", "--to-destination", wire.lab.address(NEIGHBOUR)]
    for operation in ("-A", "-D"):
        with ruleset(wire.lab, "node1"):
            rule = [operation, "PREROUTING", "-d", SERVICE, *to_neighbour]
            wire.lab.exec("node1", "iptables", "-t", "nat", *rule)
        if operation == "-A":
            yield SERVICE


def test_to_service(wire, service):
    """Of a translated connection it takes the kernel path, and the rest is bypassed."""
    lab = wire.lab
    ends = Ends(lab.netns(SENDER), lab.netns(NEIGHBOUR), service)
    with big(lab, (SENDER, "eth0"), veth(lab, NEIGHBOUR)):
        agent_sees(lab, NEIGHBOUR, BIG)
        with lab.verdicts("node1") as moved:
            transfer.tcp(ends, MEGABYTES << 20)
    assert moved["from_pod", "big_tcp"] > 0
    assert moved["from_pod", "nat"] > 0
