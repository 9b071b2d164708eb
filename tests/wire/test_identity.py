# SPDX-License-Identifier: Apache-2.0
"""Nobody is bypassed under a false name; without --strict the kernel path judges as ever."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

import pytest
from exotic import NOBODY, fragments, vlan
from frames import Frame, Udp, vxlan
from wire import AT_RECEIVER, NEIGHBOUR, RECEIVER, SENDER, Wire

EVERYWHERE = (SENDER, NEIGHBOUR, RECEIVER, "node2-pod2", "wire-node1", "wire-node2")
SECOND_ADDRESS = IPv4Address("192.168.77.112")
STRANGER, WORLD = IPv4Address("192.168.77.99"), IPv4Address("203.0.113.9")

# flannel's rule for whom the node does not know: sent on in the node's name.
MASQUERADED = ("from_nic flow_unknown", "to_pod learned")


@dataclass(frozen=True, slots=True)
class Case:
    """A frame under a false name."""

    make: Callable[[Wire, Frame], Frame | bytes]
    """Of the wire, and of a packet that a pod sends under its own name."""
    verdict: str
    later: tuple[str, ...] = ()
    """What else is counted, where the kernel path lets it pass; it is dropped if nothing is."""


@pytest.fixture(autouse=True)
def _true_name(wire):
    """The bridge believes false names for five minutes, unless the true station speaks again."""
    yield
    wire.send([wire.from_pod(wire.fresh_flow(), source=NEIGHBOUR, target=SENDER)], at=NEIGHBOUR)


def source(name):
    """The packet under another's address."""
    return lambda wire, plain: replace(plain, source=IPv4Address(wire.lab.address(name)))


def tunnel(name):
    """The same, tunnelled by node1."""
    return lambda wire, plain: wire.from_peer(source(name)(wire, plain))


def by_hand(wire, plain):
    """The same in a tunnel of the pod's own, which has node1's address once it is masqueraded."""
    payload = vxlan(bytes(wire.carried(plain)))
    transport = Udp(source=plain.transport.source, dest=8472, payload=payload)
    return replace(plain, destination=IPv4Address(wire.lab.address("node2")), transport=transport)


def priority_tags(_, plain):
    """The packet behind four of them: the kernel takes one off before the program sees it."""
    frame = plain
    for _ in range(4):
        frame = vlan(frame, 0)
    return frame


FROM_POD = {
    "address_of_a_neighbour": Case(
        source(NEIGHBOUR),
        "spoofed_address",
        ("from_nic flow_unknown", "to_pod learned"),
    ),
    "address_of_nobody": Case(
        lambda _, plain: replace(plain, source=IPv4Address("10.42.1.200")),
        "spoofed_address",
        ("from_nic flow_unknown", "to_pod learned"),
    ),
    "address_of_a_peers_pod": Case(
        source("node3-pod1"),
        "spoofed_address",
        MASQUERADED,
    ),
    "address_of_the_gateway": Case(
        lambda _, plain: replace(plain, source=IPv4Address("10.42.1.1")), "spoofed_address"
    ),
    "address_of_the_world": Case(
        lambda _, plain: replace(plain, source=WORLD),
        "spoofed_address",
        MASQUERADED,
    ),
    "no_address": Case(
        lambda _, plain: replace(plain, source=IPv4Address("0.0.0.0")), "spoofed_address"
    ),
    "mac_of_a_neighbour": Case(
        lambda wire, plain: replace(plain, source_mac=wire.lab.pod(NEIGHBOUR).mac),
        "spoofed_mac",
        ("from_nic decapsulated",),
    ),
    "mac_of_nobody": Case(
        lambda _, plain: replace(plain, source_mac=NOBODY),
        "spoofed_mac",
        ("from_nic decapsulated",),
    ),
    "tunnel_by_hand": Case(by_hand, "forged_tunnel", ("from_nic decapsulated",)),
    "too_many_tags": Case(priority_tags, "tags", ("from_nic decapsulated",)),
}
FROM_NIC = {
    "tunnel_of_a_stranger": Case(
        lambda wire, plain: replace(wire.from_peer(plain), source=STRANGER),
        "unknown_vtep",
        ("to_pod no_stamp",),
    ),
    "stranger_with_the_worlds_address": Case(
        lambda wire, plain: replace(wire.from_peer(replace(plain, source=WORLD)), source=STRANGER),
        "unknown_vtep",
        ("to_pod no_stamp",),
    ),
    "stranger_with_a_malformed_packet": Case(
        lambda wire, plain: replace(wire.from_peer(replace(plain, checksum=1)), source=STRANGER),
        "unknown_vtep",
    ),
    "tunnel_of_another_peer": Case(
        lambda wire, plain: source("node3")(wire, wire.from_peer(plain)),
        "wrong_vtep",
        ("to_pod no_stamp",),
    ),
    "pod_of_another_peer": Case(tunnel("node3-pod1"), "wrong_vtep", ("to_pod no_stamp",)),
    "another_address_of_the_node": Case(
        lambda wire, plain: replace(wire.from_peer(plain), destination=SECOND_ADDRESS),
        "not_our_vtep",
        ("to_pod no_stamp",),
    ),
}
# No false name: a peer may forward a packet whose sender is nobody's pod.
NO_PEER = {
    "world": Case(
        lambda wire, plain: wire.from_peer(replace(plain, source=WORLD)),
        "no_peer",
        ("to_pod no_stamp",),
    ),
    "pod_of_the_receiver": Case(tunnel("node2-pod2"), "no_peer", ("to_pod no_stamp",)),
}

# What the programs leave to the kernel path, and what it takes all the same.
DISGUISES = {
    "padding": lambda frame: [replace(frame, padding=bytes(5))],
    "options": lambda frame: [replace(frame, options=bytes([1, 1, 1, 0]))],
    "priority": lambda frame: [vlan(frame, 0)],
    "fragments": lambda frame: fragments(frame, 64),
    "short fragments": lambda frame: fragments(frame, 8),
}


def probe(wire, case, *, at):
    """Send the case's frame beside an approved flow, by both ways."""
    plain = wire.from_pod(wire.fresh_flow())
    approve = wire.from_peer(plain) if at == AT_RECEIVER else plain
    return wire.compare([case.make(wire, plain)], at=at, approve=approve, seen_at=EVERYWHERE)


def add_second_address(wire):
    """Another address of node2's NIC, on which the kernel takes tunnels too."""
    wire.lab.exec("node2", "ip", "address", "replace", f"{SECOND_ADDRESS}/32", "dev", "eth0")


@pytest.mark.parametrize("case", FROM_POD.values(), ids=FROM_POD)
def test_from_pod(wire, case):
    """What a pod sends under another's address or MAC fares as without vxlane, and is counted."""
    outcome = probe(wire, case, at=SENDER)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == ({"wire-node1": 1, RECEIVER: 1} if case.later else {})
    assert outcome.counted == sorted([f"from_pod {case.verdict}", *case.later])


@pytest.mark.parametrize("case", [*FROM_NIC.values(), *NO_PEER.values()], ids=[*FROM_NIC, *NO_PEER])
def test_from_nic(wire, case):
    """A tunnel between the wrong ends, or with another's pod in it, fares as without vxlane."""
    add_second_address(wire)
    outcome = probe(wire, case, at=AT_RECEIVER)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == ({RECEIVER: 1} if case.later else {})
    assert outcome.counted == sorted([f"from_nic {case.verdict}", *case.later])


def test_strict(strict_wire):
    """With --strict what bears a false name is dropped, be the bypass on or off, and only that."""
    add_second_address(strict_wire)
    for case in FROM_POD.values():
        outcome = probe(strict_wire, case, at=SENDER)
        assert outcome.bypass == outcome.kernel
        assert outcome.arrivals == {}
        assert outcome.counted == [f"from_pod {case.verdict}"]
    for case in FROM_NIC.values():
        outcome = probe(strict_wire, case, at=AT_RECEIVER)
        assert outcome.bypass == outcome.kernel
        assert outcome.arrivals == {}
        assert outcome.counted == [f"from_nic {case.verdict}"]
    for case in NO_PEER.values():
        outcome = probe(strict_wire, case, at=AT_RECEIVER)
        assert outcome.bypass == outcome.kernel
        assert outcome.arrivals == {RECEIVER: 1}


def test_strict_spares_vlans(strict_wire):
    """What a VLAN carries is another network's: its addresses are none of --strict's business."""
    plain = strict_wire.from_pod(strict_wire.fresh_flow())
    near = {"dest_mac": strict_wire.lab.pod(NEIGHBOUR).mac, "source": WORLD}
    tagged = vlan(replace(plain, **near), 7)
    outcome = strict_wire.compare([tagged], at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    assert outcome.arrivals == {NEIGHBOUR: 1}
    assert outcome.counted == ["from_pod not_ip", "to_pod no_stamp"]
    tunnel = strict_wire.from_peer(plain)
    tagged = vlan(replace(tunnel, source=STRANGER), 7)
    outcome = strict_wire.compare([tagged], at=AT_RECEIVER, approve=tunnel, seen_at=EVERYWHERE)
    assert outcome.counted == ["from_nic not_ip"]


def disguised(wire, disguise):
    """A false name of a pod, and one of a peer, in that disguise: frames and what came of them."""
    plain = wire.from_pod(wire.fresh_flow(bytes(100)))
    for case, at, approve in (
        (FROM_POD["address_of_nobody"], SENDER, plain),
        (FROM_NIC["tunnel_of_a_stranger"], AT_RECEIVER, wire.from_peer(plain)),
    ):
        frames = disguise(case.make(wire, plain))
        yield len(frames), wire.compare(frames, at=at, approve=approve, seen_at=EVERYWHERE)


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_disguise(wire, disguise):
    """The kernel path takes a false name in disguise, and without --strict vxlane lets it."""
    for _, outcome in disguised(wire, disguise):
        assert outcome.bypass == outcome.kernel
        assert outcome.arrivals[RECEIVER] > 0


def test_no_disguise(strict_wire):
    """Padding, options, a priority tag or fragments carry no false name past --strict."""
    for disguise in DISGUISES.values():
        (pieces, pod), (tunnels, peer) = disguised(strict_wire, disguise)
        assert pod.arrivals == peer.arrivals == {}
        assert pod.counted == ["from_pod spoofed_address"] * pieces
        # A packet without its first fragment is never put together.
        assert peer.counted == [*["from_nic fragment"] * (tunnels - 1), "from_nic unknown_vtep"]
