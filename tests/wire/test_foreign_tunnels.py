# SPDX-License-Identifier: Apache-2.0
"""What the wire brings that is no tunnel of ours is delivered or dropped as without vxlane."""

import socket
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from exotic import BROADCAST, LOCAL_EXPERIMENTAL, NOBODY, arp, cut, ethernet, ipv6, to, udp, vlan
from frames import Raw, Tcp, Udp, vxlan
from taps import socket_in
from wire import AT_RECEIVER, RECEIVER, SENDER

EVERYWHERE = (SENDER, "node1-pod2", RECEIVER, "node2-pod2", "wire-node1", "wire-node2")
ARRIVED = {RECEIVER: 1}
GROUP, GROUP_MAC = IPv4Address("239.1.2.3"), "01:00:5e:01:02:03"


@pytest.fixture
def inner(wire, plain):
    """That packet as it stands in a tunnel from node1 to node2."""
    return wire.carried(plain)


@pytest.fixture
def tunnel(wire, plain):
    """The whole frame on the wire."""
    return wire.from_peer(plain)


@pytest.fixture
def probe(wire, tunnel):
    """Send a frame beside the approved flow, by both ways, and compare."""

    def send(frame):
        outcome = wire.compare([frame], at=AT_RECEIVER, approve=tunnel, seen_at=EVERYWHERE)
        assert outcome.bypass == outcome.kernel
        return outcome

    return send


@pytest.mark.parametrize("vni", [0, 2, 0x010001])
def test_other_vni(wire, probe, inner, vni):
    """A tunnel of a VNI that is not ours is dropped by the kernel."""
    outcome = probe(wire.tunnel(vxlan(bytes(inner), vni=vni)))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic foreign_vni"]


@pytest.mark.parametrize(
    ("flags", "reserved"),
    [
        pytest.param(0x00000000, 0, id="no_vni"),
        pytest.param(0x88000000, 0, id="gbp"),
        pytest.param(0x88000064, 0, id="gbp_group"),
        pytest.param(0x0C000001, 0, id="gpe"),
        pytest.param(0x08200000, 0, id="remote_checksum"),
        pytest.param(0x08000100, 0, id="unknown"),
        pytest.param(0x08000000, 1, id="reserved"),
    ],
)
def test_other_flags(wire, probe, inner, flags, reserved):
    """A VXLAN header with more or less than a VNI is the kernel's, which drops it."""
    outcome = probe(wire.tunnel(vxlan(bytes(inner), flags=flags, reserved=reserved)))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic vxlan_header"]


@pytest.mark.parametrize("port", [4789, 8471])
def test_other_port(probe, tunnel, port):
    """VXLAN to another port is answered with "port unreachable", as nobody listens there."""
    outcome = probe(udp(tunnel, dest=port))
    assert outcome.arrivals == {"wire-node2": 1}
    assert outcome.counted == ["from_nic not_overlay"] * 2


def test_tcp_to_the_port(probe, tunnel):
    """A TCP segment to port 8472 is answered with a RST."""
    outcome = probe(replace(tunnel, transport=Tcp(source=1, dest=8472)))
    assert outcome.arrivals == {"wire-node2": 1}
    assert outcome.counted == ["from_nic not_overlay"] * 2


@pytest.mark.parametrize("port", [0, 8472])
def test_source_port(probe, tunnel, port):
    """The source port of a tunnel is entropy: any will do."""
    outcome = probe(udp(tunnel, source=port))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic decapsulated"]


@pytest.mark.parametrize(
    ("payload", "verdict"),
    [
        (b"", "malformed"),
        (b"\x08\x00\x00\x00", "malformed"),
        (vxlan(b""), "malformed"),
        (b"no tunnel at all, but somebody's words", "vxlan_header"),
    ],
    ids=["empty", "short", "header_only", "text"],
)
def test_no_vxlan(wire, probe, payload, verdict):
    """Other bytes to port 8472 reach no pod."""
    outcome = probe(wire.tunnel(payload))
    assert outcome.arrivals == {}
    assert outcome.counted == [f"from_nic {verdict}"]


@pytest.mark.parametrize("size", [0, 16, 22, 37])
def test_cut_off(wire, probe, inner, size):
    """An inner packet that is shorter than it says reaches no pod."""
    outcome = probe(wire.tunnel(vxlan(cut(inner, size))))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic malformed"]


def test_inner_padding(wire, probe, inner):
    """Bytes that trail the inner packet are cut off by the kernel path."""
    outcome = probe(wire.tunnel(vxlan(bytes(inner) + bytes(7))))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic malformed", "to_pod no_stamp"]


@pytest.mark.parametrize(
    "make",
    [
        arp,
        lambda inner, _: ipv6(inner, inner.dest_mac),
        lambda inner, _: ethernet(inner, LOCAL_EXPERIMENTAL, bytes(50)),
        lambda inner, _: vlan(inner, 7),
    ],
    ids=["arp", "ipv6", "experimental", "vlan"],
)
def test_no_ipv4_inside(wire, probe, inner, make):
    """A tunnelled frame that is not plain IPv4 reaches no pod: flannel.1 has no use for it."""
    frame = make(inner, wire.lab.address(RECEIVER))
    outcome = probe(wire.tunnel(vxlan(frame)))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic not_ip"]


@pytest.mark.parametrize("dest_mac", [NOBODY, BROADCAST, RECEIVER])
def test_inner_frame_for_another(wire, probe, inner, dest_mac):
    """A tunnelled frame for another MAC than flannel.1's is not routed."""
    dest_mac = wire.lab.pod(RECEIVER).mac if dest_mac == RECEIVER else dest_mac
    outcome = probe(wire.tunnel(vxlan(bytes(replace(inner, dest_mac=dest_mac)))))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic other_mac"]


def test_inner_frame_from_ourselves(wire, probe, inner):
    """A tunnelled frame from flannel.1's own MAC is a loop, which the kernel breaks."""
    outcome = probe(wire.tunnel(vxlan(bytes(replace(inner, source_mac=inner.dest_mac)))))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic other_mac"]


@pytest.mark.parametrize("address", [str(GROUP), "10.42.2.255"])
def test_inner_multicast_and_broadcast(wire, probe, inner, address):
    """A tunnelled packet to a group or to the whole subnet is not handed on."""
    outcome = probe(wire.tunnel(vxlan(bytes(to(inner, address)))))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic no_pod"]


@pytest.mark.parametrize("address", ["10.42.2.0", "10.42.2.1"])
def test_for_the_node_itself(wire, probe, inner, address):
    """A tunnelled packet to flannel.1's or the bridge's address reaches the node, which answers."""
    outcome = probe(wire.tunnel(vxlan(bytes(to(inner, address)))))
    assert outcome.arrivals == {"wire-node2": 1, SENDER: 1}
    assert outcome.counted == ["from_nic no_pod", "from_nic protocol", "to_pod no_stamp"]


def test_for_a_third_node(wire, probe, inner):
    """A tunnelled packet to a pod of a third node is routed on by the kernel."""
    outcome = probe(wire.tunnel(vxlan(bytes(to(inner, wire.lab.address("node3-pod1"))))))
    assert outcome.arrivals == {"wire-node2": 1}
    # It is noted all the same: the node's own address may be a pod's by NAT.
    assert outcome.counted == ["from_nic no_pod", "to_nic no_pod"]


def test_other_protocol_inside(wire, probe, inner):
    """A tunnelled packet of another protocol takes the kernel path, and so does the answer."""
    outcome = probe(wire.tunnel(vxlan(bytes(replace(inner, transport=Raw(132, bytes(20)))))))
    assert outcome.arrivals == {RECEIVER: 1, "wire-node2": 1, SENDER: 1}
    came = ["from_pod protocol", "from_nic protocol", "to_pod no_stamp"]
    assert outcome.counted == sorted(["from_nic protocol", "to_pod no_stamp", *came])


def test_inner_header_checksum(wire, probe, inner):
    """A tunnelled packet whose IP checksum is wrong reaches no pod."""
    outcome = probe(wire.tunnel(vxlan(bytes(replace(inner, checksum=0x1234)))))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic malformed"]


@pytest.mark.parametrize(
    "make",
    [
        lambda tunnel: replace(tunnel, checksum=0x1234),
        lambda tunnel: replace(tunnel, total_length=60),
        lambda tunnel: udp(tunnel, length=40),
        lambda tunnel: udp(tunnel, length=400),
    ],
    ids=["ip_checksum", "ip_length", "udp_short", "udp_long"],
)
def test_malformed_outside(probe, tunnel, make):
    """A tunnel whose outer headers are wrong reaches no pod."""
    outcome = probe(make(tunnel))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic malformed"]


def test_outer_padding(probe, tunnel):
    """Bytes that trail the outer packet, as short Ethernet frames have, are the kernel's to cut."""
    outcome = probe(replace(tunnel, padding=bytes(9)))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic malformed", "to_pod no_stamp"]


@pytest.mark.parametrize(
    "changes",
    [{"ttl": 1}, {"ttl": 255}, {"fragment": 0x4000}, {"identification": 0}, {"tos": 0xB8}],
    ids=["ttl_1", "ttl_255", "df", "identification", "dscp"],
)
def test_what_routers_may_change(probe, tunnel, changes):
    """Outer TTL, DF, identification and DSCP are the underlay's own business."""
    outcome = probe(replace(tunnel, **changes))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic decapsulated"]


def test_outer_checksum(probe, tunnel):
    """An outer UDP checksum, which stock peers send and vxlane does not, is welcome."""
    outcome = probe(udp(tunnel, checksum=None))
    assert outcome.arrivals == ARRIVED
    assert outcome.counted == ["from_nic decapsulated"]


def test_damaged_on_the_way(wire, inner):
    """A payload that was damaged under right headers reaches no application by either way."""
    sound = udp(inner, dest=7001)
    damaged = udp(wire.tunnel(vxlan(bytes(udp(sound, checksum=0x1234)))), checksum=0x4321)
    with socket_in(wire.lab.netns(RECEIVER), socket.SOCK_DGRAM) as application:
        application.bind(("", 7001))
        application.settimeout(0.2)
        for enabled in (False, True):
            wire.set_bypass(enabled=enabled)
            wire.send([wire.tunnel(vxlan(bytes(sound)))] * 2, at=AT_RECEIVER)
            assert [application.recv(99) for _ in range(2)] == [sound.transport.payload] * 2
            with wire.counting() as counted:
                wire.send([damaged], at=AT_RECEIVER)
                with pytest.raises(TimeoutError):
                    application.recv(99)
    assert counted == ["from_nic decapsulated"]


@pytest.mark.parametrize(
    ("dest_mac", "destination", "arrivals"),
    [
        pytest.param(NOBODY, None, {}, id="other_mac"),
        pytest.param(BROADCAST, None, ARRIVED, id="broadcast_mac"),
        pytest.param(BROADCAST, IPv4Address("192.168.77.255"), ARRIVED, id="broadcast"),
        pytest.param(GROUP_MAC, GROUP, {}, id="multicast"),
    ],
)
def test_not_to_us(probe, tunnel, dest_mac, destination, arrivals):
    """A tunnel that is not sent to our very address and MAC is the kernel's to take or to drop."""
    destination = destination or tunnel.destination
    outcome = probe(replace(tunnel, dest_mac=dest_mac, destination=destination))
    assert outcome.arrivals == arrivals
    came_out = ["to_pod no_stamp"] if arrivals else []
    assert outcome.counted == ["from_nic not_our_vtep", *came_out]


@pytest.mark.parametrize(("identifier", "arrivals"), [(7, {}), (0, ARRIVED)])
def test_tagged_tunnel(probe, tunnel, identifier, arrivals):
    """A tunnel in a VLAN is not the NIC's own; with a mere priority tag it is the kernel's."""
    outcome = probe(vlan(tunnel, identifier))
    assert outcome.arrivals == arrivals
    came_out = ["to_pod no_stamp"] if arrivals else []
    assert outcome.counted == ["from_nic not_ip", *came_out]


def test_no_ipv4_outside(probe, tunnel):
    """ARP on the underlay is answered; the answer passes the other node's NIC."""
    outcome = probe(arp(tunnel, tunnel.destination))
    assert outcome.arrivals == {"wire-node2": 1}
    assert outcome.counted == ["from_nic not_ip"] * 2


def test_ipv6_outside(probe, tunnel):
    """IPv6 on the underlay is not looked into."""
    outcome = probe(ipv6(tunnel, BROADCAST))
    assert outcome.arrivals == {}
    assert outcome.counted == ["from_nic not_ip"]


def test_tunnel_in_a_tunnel(wire, probe, inner):
    """A pod's own VXLAN packet inside a tunnel is a datagram like any other."""
    nested = Udp(source=5, dest=8472, payload=vxlan(bytes(inner)))
    outcome = probe(wire.tunnel(vxlan(bytes(replace(inner, transport=nested)))))
    assert outcome.arrivals[RECEIVER] == 1
    assert outcome.counted[:2] == ["from_nic flow_unknown", "from_nic protocol"]
