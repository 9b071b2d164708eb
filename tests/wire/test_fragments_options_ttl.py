# SPDX-License-Identifier: Apache-2.0
"""Packets that the programs can't judge or must not carry are the kernel's, and fare as before."""

import re
from dataclasses import replace

import pytest
from exotic import fragments
from frames import ETHERNET, IP
from wire import AT_RECEIVER, NEIGHBOUR, RECEIVER, SENDER

EVERYWHERE = (SENDER, NEIGHBOUR, RECEIVER, "node2-pod2", "wire-node1", "wire-node2")
PAYLOAD = bytes(range(256)) * 8
OPTIONS = {
    "no_operation": bytes([1, 1, 1, 0]),
    "record_route": bytes([7, 15, 4]) + bytes(13),
    "router_alert": bytes([148, 4, 0, 0]),
    # Refused by the kernel's default.
    "loose_source_route": bytes([131, 7, 4, 192, 168, 77, 12, 0]),
}


def test_fragments_of_a_pod(wire):
    """A fragmented datagram of an approved flow arrives whole, in the fragments stock makes."""
    flow = wire.fresh_flow()
    pieces = fragments(wire.from_pod(replace(flow, payload=PAYLOAD)), 1024)
    outcome = wire.compare(pieces, at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    # Netfilter put the three together and cut two that fill the MTU.
    assert outcome.arrivals == {"wire-node1": 2, RECEIVER: 2}
    carried = b"".join(frame[ETHERNET + IP :] for frame in outcome.bypass[RECEIVER])
    assert carried[8:] == PAYLOAD
    assert outcome.counted == [
        *["from_nic fragment"] * 2,
        *["from_pod fragment"] * 3,
        *["to_pod no_stamp"] * 2,
    ]


def test_small_fragments_of_a_pod(wire):
    """Fragments that netfilter puts together go on as one packet, which the peer may bypass."""
    flow = wire.fresh_flow()
    pieces = fragments(wire.from_pod(replace(flow, payload=PAYLOAD[:64])), 8)
    outcome = wire.compare(pieces, at=SENDER, approve=wire.from_pod(flow), seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {"wire-node1": 1, RECEIVER: 1}
    assert outcome.bypass[RECEIVER][0].endswith(PAYLOAD[:64])
    assert outcome.counted == ["from_nic decapsulated", *["from_pod fragment"] * 9]


@pytest.mark.parametrize("size", [8, 48, 1024])
def test_fragmented_tunnel(wire, size):
    """A VXLAN packet fragmented on its way is put together by the kernel, wherever it was cut."""
    flow = wire.fresh_flow()
    whole = wire.from_peer(wire.from_pod(replace(flow, payload=PAYLOAD[:1200])))
    plain = wire.from_peer(wire.from_pod(flow))
    pieces = fragments(whole, size)
    outcome = wire.compare(pieces, at=AT_RECEIVER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {RECEIVER: 1}
    assert outcome.bypass[RECEIVER][0].endswith(PAYLOAD[:1200])
    assert outcome.counted == [*["from_nic fragment"] * len(pieces), "to_pod no_stamp"]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_pod(wire, options):
    """A packet with IP options is the kernel's, which obeys, fills in or refuses them."""
    plain = wire.from_pod(wire.fresh_flow())
    frames = [replace(plain, options=options)]
    outcome = wire.compare(frames, at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    if options == OPTIONS["loose_source_route"]:
        assert outcome.arrivals == {}
        assert outcome.counted == ["from_pod ip_options"]
    else:
        assert outcome.arrivals == {"wire-node1": 1, RECEIVER: 1}
        counted = ["from_nic ip_options", "from_pod ip_options", "to_pod no_stamp"]
        assert outcome.counted == counted


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_tunnel(wire, options):
    """A VXLAN packet whose outer header has options is the kernel's."""
    plain = wire.from_peer(wire.from_pod(wire.fresh_flow()))
    frames = [replace(plain, options=options)]
    outcome = wire.compare(frames, at=AT_RECEIVER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    if options == OPTIONS["loose_source_route"]:
        assert outcome.arrivals == {}
        assert outcome.counted == ["from_nic ip_options"]
    else:
        assert outcome.arrivals == {RECEIVER: 1}
        assert outcome.counted == ["from_nic ip_options", "to_pod no_stamp"]


@pytest.mark.parametrize("ttl", [0, 1])
def test_ttl_ends_at_the_first_node(wire, ttl):
    """A packet that would expire at the pod's own node is answered by that node."""
    plain = wire.from_pod(wire.fresh_flow())
    frames = [replace(plain, ttl=ttl)]
    outcome = wire.compare(frames, at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {SENDER: 1}
    assert outcome.counted == ["from_pod ttl", "to_pod no_stamp"]


def test_ttl_ends_at_the_second_node(wire):
    """A packet that expires at the peer crosses the wire by the bypass, and the peer answers."""
    plain = wire.from_pod(wire.fresh_flow())
    frames = [replace(plain, ttl=2)]
    outcome = wire.compare(frames, at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {"wire-node1": 1, "wire-node2": 1, SENDER: 1}
    went = ["from_nic ttl", "from_pod encapsulated"]
    came = ["from_nic protocol", "to_pod no_stamp"]
    assert outcome.counted == sorted(went + came)


@pytest.mark.parametrize("ttl", [3, 64, 255])
def test_each_node_takes_one_of_the_ttl(wire, ttl):
    """A bypassed packet arrives with its TTL down by two, as a routed one."""
    plain = wire.from_pod(wire.fresh_flow())
    frames = [replace(plain, ttl=ttl)]
    outcome = wire.compare(frames, at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {"wire-node1": 1, RECEIVER: 1}
    assert outcome.bypass[RECEIVER][0][ETHERNET + 8] == ttl - 2
    assert outcome.counted == ["from_nic decapsulated", "from_pod encapsulated"]


def hops(wire, identifier):
    """Who answers a ping whose TTL is 1, 2, 3; of one identifier, so that it is one flow."""
    answered = []
    for ttl in ("1", "2", "3"):
        argv = ["ping", "-n", "-c", "1", "-W", "2", "-e", identifier, "-t", ttl]
        said = wire.lab.exec(SENDER, *argv, wire.lab.address(RECEIVER), check=False).stdout
        found = re.search(r"[Ff]rom ([\d.]+):? icmp_seq", said)
        answered.append(found and found[1])
    return answered


def test_traceroute(wire):
    """Tracing the way to a pod of another node names the same hops by both ways."""
    wire.set_bypass(enabled=False)
    try:
        stock = hops(wire, "77")
    finally:
        wire.set_bypass(enabled=True)
    # Two echoes approve the flow at both ends.
    approve = ["ping", "-c", "3", "-i", "0.1", "-e", "77", wire.lab.address(RECEIVER)]
    wire.lab.exec(SENDER, *approve)
    with wire.counting() as counted:
        assert hops(wire, "77") == stock == ["10.42.1.1", "10.42.2.0", wire.lab.address(RECEIVER)]
    first = ["from_pod ttl", "to_pod no_stamp"]
    second = ["from_pod encapsulated", "from_nic ttl", "from_nic protocol", "to_pod no_stamp"]
    third = ["from_pod encapsulated", "from_nic decapsulated"] * 2
    assert counted == sorted(first + second + third)
