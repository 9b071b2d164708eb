# SPDX-License-Identifier: Apache-2.0
"""What pods sent and received, read from the far ends of their veths."""

from __future__ import annotations

import socket

from vxlane.host.traffic import PodTraffic, Traffic
from vxlane.lab import namespaces
from vxlane.netlink.socket import NetlinkSocket


def make_veth(node: str, pod: str) -> int:
    """A pod's veth, in whose node this thread is; the ifindex of its near end."""
    namespaces.run(node, "ip", "link", "add", "veth0", "type", "veth", "peer", "eth0", "netns", pod)
    namespaces.run(node, "ip", "link", "set", "veth0", "addrgenmode", "none", "up")
    namespaces.run(pod, "ip", "link", "set", "eth0", "addrgenmode", "none", "up")
    return socket.if_nametoindex("veth0")


SEND = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((sys.argv[1], 0x0800))
for _ in range(int(sys.argv[2])):
    sender.send(bytes(12) + bytes([8, 0]) + bytes(86))
"""


def test_it_is_what_the_pod_sees(netns, make_netns) -> None:
    """What it sent is tx, what it got is rx; a veth made anew is read at its new far end."""
    pod = make_netns("pod")
    near = make_veth(netns, pod)
    netlink = NetlinkSocket()
    traffic = PodTraffic(netlink)
    assert traffic.read([near]) == {near: Traffic(0, 0, 0, 0)}
    namespaces.run(pod, "/usr/bin/python3", "-Ic", SEND, "eth0", "3")
    namespaces.run(netns, "/usr/bin/python3", "-Ic", SEND, "veth0", "2")
    assert traffic.read([near, 9999]) == {near: Traffic(3, 300, 2, 200)}
    namespaces.run(netns, "ip", "link", "delete", "veth0")
    assert traffic.read([near]) == {}
    namespaces.run(pod, "ip", "link", "add", "other", "type", "bridge")
    again = make_veth(netns, pod)
    assert traffic.read([again]) == {again: Traffic(0, 0, 0, 0)}
    netlink.close()
