# SPDX-License-Identifier: Apache-2.0
"""What does not fit is refused, cut or shortened where, and as, the kernel does it."""

import contextlib
import socket
from dataclasses import replace

import pytest
import transfer
from frames import DF, ENCAPSULATION, ETHERNET, IP
from taps import socket_in
from wire import RECEIVER, SENDER

from vxlane.lab.waiting import wait_for

EVERYWHERE = (SENDER, RECEIVER, "wire-node1", "wire-node2")
OVERLAY_MTU, POD_MTU = 1450, 1500
UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4


@pytest.fixture
def large_pods(wire):
    """SENDER and RECEIVER with an MTU of 1500, larger than the overlay's."""
    with contextlib.ExitStack() as stack:
        for name in (SENDER, RECEIVER):
            pod = wire.lab.pod(name)
            node = name.partition("-")[0]
            stack.enter_context(wire.mtu(node, pod.veth, POD_MTU))
            stack.enter_context(wire.mtu(name, "eth0", POD_MTU))
            stack.callback(wire.lab.exec, name, "ip", "route", "flush", "cache")
        yield


def datagram(wire, flow, size, *, fragment):
    """A packet of `size` bytes in all."""
    plain = wire.from_pod(replace(flow, payload=bytes(size - IP - 8)))
    return replace(plain, fragment=fragment)


def pod_mtu(wire):
    """What node2's programs hold for the largest packet to RECEIVER."""
    with wire.lab.maps("node2") as maps:
        return maps.pods()[wire.lab.pod(RECEIVER).address].mtu


def peer_mtu(wire):
    """What node1's programs hold for the largest inner packet to node2."""
    with wire.lab.maps("node1") as maps:
        return maps.peers()[wire.lab.node("node2").pod_cidr].mtu


@contextlib.contextmanager
def smaller_mtu(wire, place, device, size, seen):
    """Give a device a smaller MTU while `seen`, what the programs hold, follows there and back."""
    before = seen()
    with wire.mtu(place, device, size):
        wait_for(lambda: seen() == size, f"the agent to see {device}'s MTU")
        yield
    wait_for(lambda: seen() == before, f"the agent to see {device}'s MTU again")


def told_mtu(frame):
    """The MTU in an ICMP "fragmentation needed"."""
    message = frame[ETHERNET + IP :]
    assert (message[0], message[1]) == (UNREACHABLE, FRAGMENTATION_NEEDED)
    return int.from_bytes(message[6:8], "big")


@pytest.mark.usefixtures("large_pods")
@pytest.mark.parametrize("size", [OVERLAY_MTU + 1, POD_MTU])
def test_too_big_and_not_to_be_cut(wire, size):
    """A DF packet larger than the overlay is answered with the overlay's MTU."""
    flow = wire.fresh_flow()
    large = datagram(wire, flow, size, fragment=DF)
    outcome = wire.compare([large], at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {SENDER: 1}
    assert told_mtu(outcome.bypass[SENDER][0]) == OVERLAY_MTU
    assert outcome.counted == ["from_pod too_big", "to_pod no_stamp"]


@pytest.mark.usefixtures("large_pods")
@pytest.mark.parametrize("size", [OVERLAY_MTU + 1, POD_MTU])
def test_too_big_and_cut(wire, size):
    """A packet larger than the overlay that may be fragmented is, as by the kernel path."""
    flow = wire.fresh_flow()
    large = datagram(wire, flow, size, fragment=0)
    outcome = wire.compare([large], at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {"wire-node1": 2, RECEIVER: 2}
    carried = sum(len(frame) - ETHERNET - IP for frame in outcome.bypass[RECEIVER])
    assert carried == size - IP
    assert outcome.counted == [
        *["from_nic fragment"] * 2,
        "from_pod too_big",
        *["to_nic fragment"] * 2,
        *["to_pod no_stamp"] * 2,
    ]


@pytest.mark.parametrize("fragment", [0, DF])
def test_just_fits(wire, fragment):
    """A packet that fills the overlay's MTU is bypassed."""
    flow = wire.fresh_flow()
    full = datagram(wire, flow, OVERLAY_MTU, fragment=fragment)
    outcome = wire.compare([full], at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {"wire-node1": 1, RECEIVER: 1}
    assert outcome.counted == ["from_nic decapsulated", "from_pod encapsulated"]


@pytest.mark.usefixtures("large_pods")
def test_tcp_learns_the_mtu(wire):
    """A bypassed connection of pods of too large an MTU is told the overlay's, and goes on."""
    with wire.lab.verdicts("node1") as moved:
        transfer.tcp(wire.ends(SENDER, RECEIVER), 8 << 20)
    route = wire.lab.exec(SENDER, "ip", "route", "get", wire.lab.address(RECEIVER)).stdout
    assert f"mtu {OVERLAY_MTU}" in route
    assert 0 < moved["from_pod", "too_big"] < moved["from_pod", "encapsulated"]


def test_receivers_bridge_is_smaller(wire):
    """A node whose pods take less than the overlay answers for them, of bypassed flows too."""
    size, smaller = 1400, 1300
    flow = wire.fresh_flow()
    large = datagram(wire, flow, size, fragment=DF)
    with smaller_mtu(wire, "node2", "cni0", smaller, lambda: pod_mtu(wire)):
        outcome = wire.compare([large], at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {"wire-node1": 1, "wire-node2": 1, SENDER: 1}
    assert told_mtu(outcome.bypass[SENDER][0]) == smaller
    went = ["from_pod encapsulated", "from_nic too_big"]
    came = ["from_nic protocol", "to_pod no_stamp"]
    assert outcome.counted == sorted(went + came)


def test_underlay_is_smaller(wire):
    """When the NIC's MTU shrinks, the overlay's does, and who sends more is told."""
    flow = wire.fresh_flow()
    large = datagram(wire, flow, OVERLAY_MTU, fragment=DF)
    with smaller_mtu(wire, "node1", "eth0", 1400, lambda: peer_mtu(wire) + ENCAPSULATION):
        outcome = wire.compare([large], at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {SENDER: 1}
    assert told_mtu(outcome.bypass[SENDER][0]) == 1400 - ENCAPSULATION
    assert outcome.counted == ["from_pod too_big", "to_pod no_stamp"]


def test_stock_peer_cuts_its_tunnels(wire):
    """Data in tunnels that a stock peer had to fragment arrives whole, by the kernel path."""
    with wire.mtu("node3", "eth0", 1400), wire.lab.verdicts("node2") as moved:
        transfer.udp(wire.ends("node3-pod1", RECEIVER), count=20, size=OVERLAY_MTU - IP - 8)
    expected = {("from_nic", "fragment"): 40, ("to_pod", "no_stamp"): 20}
    assert moved == expected


def test_errors_reach_the_pod(wire):
    """A bypassed datagram to a closed port is answered with an error that the socket reports."""
    with socket_in(wire.lab.netns(SENDER), socket.SOCK_DGRAM) as application:
        application.settimeout(2)
        application.connect((wire.lab.address(RECEIVER), 7002))
        for _ in range(3):
            with wire.counting() as counted:
                application.send(b"anybody?")
                with pytest.raises(ConnectionRefusedError):
                    application.recv(99)
    went = ["from_pod encapsulated", "from_nic decapsulated"]
    came = ["from_pod protocol", "from_nic protocol", "to_pod no_stamp"]
    assert counted == sorted(went + came)
