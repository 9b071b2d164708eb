# SPDX-License-Identifier: Apache-2.0
"""What pods send that is no plain packet to a pod is delivered or dropped as without vxlane."""

from dataclasses import replace

import pytest
import transfer
from exotic import BROADCAST, LLDP, LOCAL_EXPERIMENTAL, NOBODY, arp, cut, ethernet, ipv6, to, vlan
from frames import ETHERNET, IP, Icmp, Raw, Tcp, Udp, vxlan
from wire import NEIGHBOUR, RECEIVER, SENDER

from vxlane.lab.traffic import Ends

EVERYWHERE = (SENDER, NEIGHBOUR, RECEIVER, "node2-pod2", "wire-node1", "wire-node2")
# A bridge's ports are in hairpin mode: what is flooded comes back to its sender, too.
FLOODED = {SENDER: 1, NEIGHBOUR: 1}
ARRIVED = {"wire-node1": 1, RECEIVER: 1}
ANSWERED = {"wire-node1": 1, RECEIVER: 1, "wire-node2": 1, SENDER: 1}
BRIDGED = {
    "ipv6_multicast": (lambda _, plain: ipv6(plain, "33:33:00:00:00:fb"), FLOODED),
    "ipv6_unicast": (
        lambda wire, plain: ipv6(plain, wire.lab.pod(NEIGHBOUR).mac),
        {NEIGHBOUR: 1},
    ),
    "experimental_broadcast": (
        lambda _, plain: ethernet(plain, LOCAL_EXPERIMENTAL, bytes(50), dest_mac=BROADCAST),
        FLOODED,
    ),
    "experimental_unicast": (
        lambda wire, plain: ethernet(
            plain, LOCAL_EXPERIMENTAL, bytes(50), dest_mac=wire.lab.pod(NEIGHBOUR).mac
        ),
        {NEIGHBOUR: 1},
    ),
    # Link-local for bridges: ends at the first one.
    "lldp": (
        lambda _, plain: ethernet(plain, LLDP, bytes(50), dest_mac="01:80:c2:00:00:0e"),
        {},
    ),
    "vlan_to_the_gateway": (lambda _, plain: vlan(plain, 7), {}),
}


def probe(wire, plain, frame):
    """Send `frame` beside the approved flow of `plain`, by both ways, and compare."""
    outcome = wire.compare([frame], at=SENDER, approve=plain, seen_at=EVERYWHERE)
    assert outcome.bypass == outcome.kernel
    return outcome


@pytest.mark.parametrize(("make", "arrivals"), BRIDGED.values(), ids=BRIDGED)
def test_no_ipv4(wire, plain, make, arrivals):
    """A frame that is not IPv4 goes where the bridge sends it."""
    outcome = probe(wire, plain, make(wire, plain))
    assert outcome.arrivals == arrivals
    copies = sum(arrivals.values())
    assert outcome.counted == ["from_pod not_ip", *["to_pod no_stamp"] * copies]


@pytest.mark.parametrize("wanted", ["10.42.1.1", NEIGHBOUR])
def test_arp(wire, plain, wanted):
    """An ARP request reaches the whole bridge and is answered by whom it asks for."""
    address = wire.lab.address(wanted) if wanted == NEIGHBOUR else wanted
    outcome = probe(wire, plain, arp(plain, address))
    assert outcome.arrivals == {SENDER: 2, NEIGHBOUR: 1}
    asked = 2 if wanted == NEIGHBOUR else 1
    assert outcome.counted == [*["from_pod not_ip"] * asked, *["to_pod no_stamp"] * 3]


def test_vlan_of_a_neighbour(wire, plain):
    """A tagged packet crosses the bridge to a pod of the same node, and keeps its tag."""
    neighbour = wire.lab.pod(NEIGHBOUR)
    frame = vlan(to(plain, neighbour.address, neighbour.mac), 7)
    outcome = probe(wire, plain, frame)
    assert outcome.arrivals == {NEIGHBOUR: 1}
    assert outcome.counted[0] == "from_pod not_ip"


def test_priority_tag(wire, plain):
    """A packet tagged with a priority only is routed, and the peer may bypass it."""
    outcome = probe(wire, plain, vlan(plain, 0))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic decapsulated", "from_pod not_ip"]


@pytest.mark.parametrize(
    ("address", "dest_mac", "ttl"),
    [
        ("255.255.255.255", BROADCAST, 64),
        ("10.42.1.255", BROADCAST, 64),
        ("224.0.0.251", "01:00:5e:00:00:fb", 255),
        ("239.1.2.3", "01:00:5e:01:02:03", 64),
    ],
)
def test_broadcast_and_multicast(wire, plain, address, dest_mac, ttl):
    """Broadcast and multicast reach the pods of the node, and nobody else."""
    outcome = probe(wire, plain, to(plain, address, dest_mac, ttl=ttl))
    assert outcome.arrivals == FLOODED
    assert outcome.counted == ["from_pod no_peer", *["to_pod no_pod"] * 2]


@pytest.mark.parametrize("dest_mac", [BROADCAST, NOBODY])
def test_unicast_by_another_mac(wire, plain, dest_mac):
    """A packet of an approved flow to another MAC than the gateway's is flooded, not routed."""
    outcome = probe(wire, plain, replace(plain, dest_mac=dest_mac))
    assert outcome.arrivals == FLOODED
    assert outcome.counted == ["from_pod other_mac", *["to_pod no_pod"] * 2]


def test_remote_broadcast(wire, plain):
    """The broadcast address of a peer's pods is an address like any other on the way there."""
    outcome = probe(wire, plain, to(plain, "10.42.2.255"))
    assert outcome.arrivals == {"wire-node1": 1}
    counted = ["from_nic no_pod", "from_pod flow_unknown", "to_nic learned"]
    assert outcome.counted == counted


@pytest.mark.parametrize("address", ["10.42.1.1", "192.168.77.11"])
def test_for_the_node_itself(wire, plain, address):
    """A packet to an address of the pod's own node is the kernel's, which answers."""
    outcome = probe(wire, plain, to(plain, address))
    assert outcome.arrivals == {SENDER: 1}
    assert outcome.counted == ["from_pod no_peer", "to_pod no_stamp"]


@pytest.mark.parametrize(
    ("transport", "answered"),
    [
        pytest.param(Raw(4, bytes(20)), True, id="ipip"),
        pytest.param(Raw(47, bytes(20)), True, id="gre"),
        pytest.param(Raw(50, bytes(20)), True, id="esp"),
        pytest.param(Raw(132, bytes(20)), True, id="sctp"),
        pytest.param(Raw(136, bytes(20)), False, id="udplite"),
        pytest.param(Raw(253, bytes(20)), True, id="experimental"),
        pytest.param(Icmp(kind=17, payload=bytes(4)), False, id="icmp_address_mask"),
    ],
)
def test_other_protocols(wire, plain, transport, answered):
    """Other protocols between pods take the kernel path, and so does "protocol unreachable"."""
    outcome = probe(wire, plain, replace(plain, transport=transport))
    assert outcome.arrivals == (ANSWERED if answered else ARRIVED)
    once = ["from_nic protocol", "from_pod protocol", "to_pod no_stamp"]
    assert outcome.counted == sorted(once * (2 if answered else 1))


@pytest.mark.parametrize("flags", [0x00, 0x29])
def test_tcp_without_ack(wire, plain, flags):
    """A TCP segment that no connection would send is netfilter's to judge."""
    segment = Tcp(source=plain.transport.source, dest=7, flags=flags)
    outcome = probe(wire, plain, replace(plain, transport=segment))
    assert outcome.arrivals == ANSWERED
    # Nothing can be learned of it. The RST that answers it may end what an exit has a record of.
    asked = ["from_nic tcp_control", "from_pod tcp_control", "to_pod no_stamp"]
    programs = ("from_pod", "to_nic", "from_nic", "to_pod")
    answered = [f"{program} tcp_control" for program in programs]
    assert outcome.counted == sorted(asked + answered)


def test_datagram_that_looks_like_a_tunnel(wire, plain):
    """A pod's datagram to a pod's port 8472 goes by the kernel path and is opened by nobody."""
    tunnel = Udp(source=plain.transport.source, dest=8472, payload=vxlan(bytes(plain)))
    frame = replace(plain, transport=tunnel)
    outcome = probe(wire, plain, frame)
    assert outcome.arrivals == ANSWERED
    assert outcome.bypass[RECEIVER][0][ETHERNET + IP + 8 :] == tunnel.payload
    went = ["from_nic flow_unknown", "from_pod forged_tunnel", "to_pod learned"]
    came = ["from_nic protocol", "from_pod protocol", "to_pod no_stamp"]
    assert outcome.counted == sorted(went + came)


def test_padding(wire, plain):
    """Bytes that trail a packet are cut off by the kernel path before they reach the tunnel."""
    outcome = probe(wire, plain, replace(plain, padding=bytes(20)))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic decapsulated", "from_pod malformed"]


@pytest.mark.parametrize(
    "changes",
    [{"checksum": 0x1234}, {"total_length": 100}, {"version": 5}, {"ihl": 4}],
    ids=["checksum", "length", "version", "header_length"],
)
def test_malformed(wire, plain, changes):
    """A packet whose IP header is wrong is dropped by the kernel path."""
    outcome = probe(wire, plain, replace(plain, **changes))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_pod malformed"]


def test_cut_off(wire, plain):
    """A frame that ends within its IP header is dropped by the kernel path."""
    outcome = probe(wire, plain, cut(plain, 12))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_pod malformed"]


def test_wrong_udp_length(wire, plain):
    """A length that is not the packet's is left to netfilter, to which it is INVALID."""
    outcome = probe(wire, plain, replace(plain, transport=replace(plain.transport, length=5)))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic malformed", "from_pod malformed", "to_pod no_stamp"]


def test_wrong_udp_checksum(wire, plain):
    """The checksum is the receiver's to check, by either way."""
    frame = replace(plain, transport=replace(plain.transport, checksum=0x1234))
    outcome = probe(wire, plain, frame)
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic decapsulated", "from_pod encapsulated"]


@pytest.fixture
def pods_tunnel(wire, port):
    """A VXLAN device in each of two pods that leads to the other: the ends of a transfer."""
    lab, addresses = wire.lab, {SENDER: "172.31.8.1", RECEIVER: "172.31.8.2"}
    for pod, other in ((SENDER, RECEIVER), (RECEIVER, SENDER)):
        kind = ["type", "vxlan", "id", "7", "dstport", str(port), "dev", "eth0"]
        way = ["local", lab.address(pod), "remote", lab.address(other)]
        lab.exec(pod, "ip", "link", "add", "nested", *kind, *way)
        lab.exec(pod, "ip", "address", "add", f"{addresses[pod]}/24", "dev", "nested")
        lab.exec(pod, "ip", "link", "set", "nested", "up")
    yield Ends(lab.netns(SENDER), lab.netns(RECEIVER), addresses[RECEIVER])
    for pod in addresses:
        lab.exec(pod, "ip", "link", "del", "nested")


def transfers(wire, ends):
    """What is counted of a connection and of datagrams, cut and 20 at a time, that arrive whole."""
    with wire.lab.verdicts(*wire.nodes) as moved:
        transfer.tcp(ends, 4 << 20)
        transfer.udp(ends, count=40, size=1300)
        transfer.udp(ends, count=10, size=1300, segments=20)
    return moved


@pytest.mark.parametrize("port", [4789])
def test_tunnel_of_pods(wire, pods_tunnel):
    """VXLAN between pods works: what can't be put into a second tunnel takes the kernel path."""
    moved = transfers(wire, pods_tunnel)
    assert moved["from_pod", "refused"] > 50
    assert set(moved) - {("from_pod", "encapsulated")} == {
        ("from_pod", "refused"),
        ("from_pod", "flow_unknown"),
        ("to_nic", "learned"),
        ("from_nic", "decapsulated"),
        ("from_nic", "flow_unknown"),
        ("to_pod", "learned"),
    }


@pytest.mark.parametrize("port", [8472])
def test_tunnel_of_pods_by_the_overlays_port(wire, pods_tunnel):
    """VXLAN between pods to flannel's own port works, and leaves its sender by the kernel path."""
    moved = transfers(wire, pods_tunnel)
    assert moved["from_pod", "forged_tunnel"] > 50
    assert set(moved) == {
        ("from_pod", "forged_tunnel"),
        ("from_nic", "decapsulated"),
        ("from_nic", "flow_unknown"),
        ("to_pod", "learned"),
    }
