# SPDX-License-Identifier: Apache-2.0
"""A pod that routes: what it forwards are the segments that the sender made."""

import pytest
import transfer
from taps import SegmentTap
from wire import SENDER

from vxlane.lab import namespaces
from vxlane.lab.traffic import Ends

PORT = 7777
GATEWAY, SERVER = "172.31.9.1", "172.31.9.2"
SEGMENT = 1450 - 20 - 20 - 12
"""The overlay's MTU less the headers of IPv4 and TCP with timestamps."""


@pytest.fixture
def behind(wire, make_netns):
    """A namespace behind a pod of node2, which passes PORT on to it; the ends of a connection."""
    lab = wire.lab
    pod = lab.lab.add_pod(lab.node("node2"))
    name = pod.name.removeprefix(f"{lab.lab.name}-")
    namespace = make_netns("behind")
    translate = ["-p", "tcp", "--dport", str(PORT), "-j", "DNAT", "--to-destination", SERVER]
    for place, command in (
        (name, f"ip link add inner type veth peer name eth0 netns {namespace}"),
        (name, f"ip address add {GATEWAY}/24 dev inner"),
        (name, "ip link set inner up"),
        (name, "sysctl -qw net.ipv4.ip_forward=1"),
    ):
        lab.exec(place, *command.split())
    lab.exec(name, "iptables", "-t", "nat", "-A", "PREROUTING", *translate)
    for command in (
        f"address add {SERVER}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {GATEWAY}",
    ):
        namespaces.run(None, "ip", "-n", namespace, *command.split())
    yield Ends(lab.netns(SENDER), namespace, str(pod.address))
    lab.lab.remove_pod(pod)


@pytest.mark.parametrize("enabled", [False, True], ids=["kernel", "bypass"])
def test_segments_keep_their_size(wire, behind, enabled):
    """TCP forwarded through a pod leaves it in the segments that came, on either path."""
    wire.set_bypass(enabled=enabled)
    tap = SegmentTap(behind.target, "eth0")
    try:
        with wire.lab.verdicts("node2") as moved:
            transfer.tcp(behind, 32 << 20, port=PORT)
        sizes = {size for size, _ in tap.segments()}
    finally:
        tap.close()
        wire.set_bypass(enabled=True)
    assert sizes - {0} == {SEGMENT}
    assert (moved["from_nic", "decapsulated"] > 100) is enabled
