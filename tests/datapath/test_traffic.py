# SPDX-License-Identifier: Apache-2.0
"""What no test run can show: an skb carries more than BPF_PROG_TEST_RUN lets a test give it.

Real frames and the node's own kernel path, each with the counters of exactly those programs that
see it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from bench import Bench
from chamber import Port, ip
from frames import VLAN, super_packet
from machinecan import BOTH
from node import Node
from tables.case import ACK_DATA, DATAGRAM, handed_over, only, sent
from tables.from_nic import ANSWER, UNCHECKED, carried, covered, inner
from world import APPROVED, EPOCH, NEIGHBOUR_VETH, NIC, PEER, POD, REMOTE, UDP_FLOW, VETH, Approval
from worldmaps import stand

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.attach import Hooks
from vxlane.lab.waiting import wait_for
from vxlane.netlink.socket import NetlinkSocket

SERVICE = IPv4Address("10.43.0.10")


@pytest.fixture(params=BOTH)
def attached(
    request: pytest.FixtureRequest, node: Node, bench: Bench, netlink: NetlinkSocket
) -> Iterator[None]:
    """All programs on their hooks, as an agent attaches them."""
    hooks = Hooks(bench.pins, request.param, netlink)
    for program, ifindex in (
        (Program.FROM_POD, VETH),
        (Program.TO_POD, VETH),
        (Program.FROM_POD, NEIGHBOUR_VETH),
        (Program.TO_POD, NEIGHBOUR_VETH),
        (Program.FROM_NIC, NIC),
        (Program.TO_NIC, NIC),
    ):
        node.chamber.run(hooks.attach, program, ifindex)
    yield
    node.chamber.run(hooks.detach_all)


@pytest.fixture
def service(node: Node) -> Iterator[None]:
    """SERVICE is REMOTE, by a rule as kube-proxy writes them."""
    rules = (
        "table ip nat { chain prerouting { type nat hook prerouting priority dstnat;"
        f" ip daddr {SERVICE} dnat to {REMOTE}; }}; }}"
    )
    node.chamber.run(subprocess.run, ["nft", rules], check=True)
    # Of other tests' flows: a rule's translation is that of a flow's first packet.
    node.chamber.run(subprocess.run, ["conntrack", "-F"], check=True, capture_output=True)
    yield
    node.chamber.run(subprocess.run, ["nft", "delete table ip nat"], check=True)


@pytest.fixture
def tunnel(node: Node) -> Iterator[Port]:
    """A VXLAN device of the pod's own, towards REMOTE."""
    node.outside.run(add_tunnel)
    port = node.outside.run(Port, "tunnel")
    yield port
    port.close()
    node.outside.run(ip, "link delete tunnel", f"address delete {POD.address}/24 dev pod")


def add_tunnel() -> None:
    """Make it; the pod gets the address and the neighbour that a real one has."""
    gateway = "10.42.1.1"
    tunnel = f"id 42 local {POD.address} remote {REMOTE} dstport 4789 dev pod"
    ip(
        f"address add {POD.address}/24 dev pod",
        f"neighbour replace {gateway} lladdr {POD.gateway_mac} dev pod nud permanent",
        f"route add {REMOTE} via {gateway} dev pod",
        f"link add tunnel type vxlan {tunnel}",
        "link set tunnel up",
    )


def tagged(frame: bytes) -> bytes:
    """A frame with an 802.1Q tag of VLAN 5."""
    return frame[:12] + VLAN.to_bytes(2, "big") + b"\0\5" + frame[12:]


@pytest.mark.usefixtures("attached")
def test_vlan_tag_of_a_pod(node: Node, bench: Bench) -> None:
    """A tagged frame between pods is neither bypassed nor teaches anything, and arrives."""
    standing = stand(bench.maps, only())
    frame = bytes(handed_over(DATAGRAM))
    with bench.counting() as moved:
        node.neighbour.drain()
        node.pod.send(tagged(frame))
        # The receiving kernel keeps the tag beside the bytes.
        assert node.neighbour.receive(lambda seen: seen == frame)
    assert moved.packets == {
        (Program.FROM_POD, Verdict.NOT_IP): 1,
        (Program.TO_POD, Verdict.NO_STAMP): 1,
    }
    assert standing.flows() == frozenset()


@pytest.mark.usefixtures("attached")
def test_vlan_tag_on_the_wire(node: Node, bench: Bench) -> None:
    """A tagged frame is not this node's VXLAN: its VLAN may be another underlay."""
    stand(bench.maps, APPROVED)
    frame = bytes(carried(inner(ANSWER)))
    with bench.counting() as moved:
        node.wire.send(tagged(frame))
        node.wire.send(frame)
        node.pod.receive(lambda seen: seen.endswith(ANSWER.payload))
    assert moved.packets == {
        (Program.FROM_NIC, Verdict.NOT_IP): 1,
        (Program.FROM_NIC, Verdict.DECAPSULATED): 1,
    }


@pytest.mark.usefixtures("attached")
def test_damage_that_only_the_tunnel_can_tell(node: Node, bench: Bench) -> None:
    """A datagram without a checksum is dropped if it was damaged in a tunnel that has one."""
    stand(bench.maps, APPROVED)
    whole = bytes(covered(inner(UNCHECKED)))
    damaged = whole[:-1] + b"?"
    with bench.counting() as moved:
        node.pod.drain()
        node.wire.send(damaged)
        node.wire.send(whole)
        seen = node.pod.until(lambda one: one.endswith(ANSWER.payload))
    assert [one for one in seen if one.endswith(damaged[-8:])] == []
    assert moved.packets == {
        (Program.FROM_NIC, Verdict.NO_CHECKSUM): 2,
        (Program.TO_POD, Verdict.LEARNED): 1,
    }


@pytest.mark.usefixtures("attached")
def test_kernel_path_is_learned(node: Node, bench: Bench) -> None:
    """Question and answer by the kernel path approve both halves of their flow."""
    standing = stand(bench.maps, only())
    with bench.counting() as moved:
        node.pod.send(bytes(sent(DATAGRAM)))
        node.wire.receive(lambda seen: seen.endswith(DATAGRAM.payload))
        node.wire.send(bytes(carried(inner(ANSWER))))
        node.pod.receive(lambda seen: seen.endswith(ANSWER.payload))
    assert moved.packets == {
        (Program.FROM_POD, Verdict.FLOW_UNKNOWN): 1,
        (Program.TO_NIC, Verdict.LEARNED): 1,
        (Program.FROM_NIC, Verdict.FLOW_HALF): 1,
        (Program.TO_POD, Verdict.LEARNED): 1,
    }
    assert standing.flows() == {Approval(tuple=UDP_FLOW, out=0, into=0)}


@pytest.mark.usefixtures("attached", "service")
def test_translated(node: Node, bench: Bench) -> None:
    """What netfilter makes another flow of is learned, and then bypassed as that flow."""
    standing = stand(bench.maps, only())
    with bench.counting() as moved:
        for _ in range(2):
            node.pod.send(bytes(sent(DATAGRAM, destination=SERVICE)))
            node.wire.receive(lambda seen: seen.endswith(DATAGRAM.payload))
            node.wire.send(bytes(carried(inner(ANSWER))))
            answer = node.pod.receive(lambda seen: seen.endswith(ANSWER.payload))
            assert answer[26:30] == SERVICE.packed
    assert moved.packets == {
        (Program.FROM_POD, Verdict.NO_PEER): 1,
        (Program.TO_NIC, Verdict.TRANSLATED): 1,
        (Program.FROM_NIC, Verdict.FLOW_UNKNOWN): 1,
        (Program.TO_POD, Verdict.LEARNED): 1,
        (Program.FROM_POD, Verdict.NAT): 1,
        (Program.FROM_NIC, Verdict.NAT): 1,
    }
    flow = replace(UDP_FLOW, remote=SERVICE)
    assert standing.flows() == {Approval(tuple=flow, behind=UDP_FLOW, out=0, into=0)}


@pytest.mark.usefixtures("attached")
def test_rules_that_change_meanwhile(node: Node, bench: Bench) -> None:
    """What netfilter let through in an earlier epoch teaches nothing when it comes out."""
    standing = stand(bench.maps, only())
    gateway = f"neighbour replace {PEER.cidr.network_address} dev flannel.1"
    # Without its neighbour a packet waits behind netfilter, before the device.
    ip(f"{gateway} nud none")
    with bench.counting() as moved:
        node.pod.send(bytes(sent(DATAGRAM)))
        wait_for(waits_for_a_neighbour, "the packet to wait")
        bench.maps.put_settings(replace(bench.maps.settings(), epoch=EPOCH + 1))
        ip(f"{gateway} lladdr {PEER.vtep_mac} nud permanent")
        node.wire.receive(lambda seen: seen.endswith(DATAGRAM.payload))
    assert moved.packets == {
        (Program.FROM_POD, Verdict.FLOW_UNKNOWN): 1,
        (Program.TO_NIC, Verdict.STALE_EPOCH): 1,
    }
    assert standing.flows() == frozenset()


def waits_for_a_neighbour() -> bool:
    """Whether the kernel looks for the gateway's neighbour."""
    command = ["ip", "neighbour", "show", "dev", "flannel.1", "nud", "incomplete"]
    return bool(subprocess.check_output(command))


@pytest.mark.usefixtures("attached")
def test_tunnel_of_a_pods_own(node: Node, bench: Bench, tunnel: Port) -> None:
    """A super-packet in a pod's own tunnel can't be nested: the kernel path takes it, whole."""
    stand(bench.maps, only())
    payload = bytes(number % 251 for number in range(3000))
    frame = sent(replace(ACK_DATA, payload=payload))
    with bench.counting() as moved:
        tunnel.send(bytes(sent(ACK_DATA)))
        node.wire.receive(lambda one: one.endswith(ACK_DATA.payload))
        tunnel.send_super(super_packet(frame, 1200))
        seen = node.wire.until(lambda one: one.endswith(payload[-8:]))
    assert payload in b"".join(one[-1200:] for one in seen[:2]) + seen[2][-600:]
    # From the segments, cut by flannel.1, the exit learns on 6.18; on 7.2 they count as changed.
    entrance = {key: count for key, count in moved.packets.items() if key[0] is Program.FROM_POD}
    assert entrance == {
        (Program.FROM_POD, Verdict.FLOW_UNKNOWN): 1,
        (Program.FROM_POD, Verdict.REFUSED): 1,
    }
