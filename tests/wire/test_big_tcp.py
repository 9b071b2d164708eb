# SPDX-License-Identifier: Apache-2.0
"""BIG TCP: super-packets so long that no IP header can tell their length."""

import contextlib
import sys

import pytest
import transfer
from wire import NEIGHBOUR, RECEIVER, SENDER

from vxlane.lab.traffic import Ends

BIG, LEGACY = 131072, 65536
MEGABYTES = 8
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
def big(lab, devices):
    """Have devices make and take super-packets of more than 64 kB."""

    def let(size):
        for place, device in devices:
            lab.exec(place, sys.executable, "-c", SET_SIZES, device, str(size))

    let(BIG)
    try:
        yield
    finally:
        let(LEGACY)


@pytest.mark.parametrize("target", [RECEIVER, NEIGHBOUR])
def test_big_tcp(wire, target):
    """It has a verdict of its own, takes the kernel path, and all of it arrives.

    The rest of the connection is bypassed: what is shorter, and what comes back.
    """
    ends = Ends(wire.lab.netns(SENDER), wire.lab.netns(target), wire.lab.address(target))
    pods = SENDER, target
    veths = [(pod.partition("-")[0], wire.lab.pod(pod).veth) for pod in pods]
    with (
        big(wire.lab, [*veths, *((pod, "eth0") for pod in pods)]),
        wire.lab.verdicts(*{node for node, _ in veths}) as moved,
    ):
        transfer.tcp(ends, MEGABYTES << 20)
    assert moved["from_pod", "big_tcp"] > MEGABYTES
    assert moved["from_pod", "malformed"] == 0
    assert moved["from_pod", "switched" if target == NEIGHBOUR else "encapsulated"] > 0
