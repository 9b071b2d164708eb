# SPDX-License-Identifier: Apache-2.0
"""The maps as dataclasses: what goes in comes out, in either family."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from bench import Bench
from frames import UDP
from node import Node
from tables.case import DATAGRAM, sent
from testrun import Context
from world import (
    APPROVED,
    LOCAL_UDP,
    NEIGHBOUR,
    NEIGHBOUR_VETH,
    PEER,
    POD,
    UDP_FLOW,
    VETH,
    Approval,
    World,
)
from worldmaps import put_flow, settings, stand

from vxlane.datapath import batches, syscall
from vxlane.datapath.abi import HEADER, Guard, Program, Verdict, Way
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Count, Flow, Peer, PeerCount, Pod, Tuple
from vxlane.errors import ContractError, KernelError

PEER6 = Peer(
    cidr=IPv6Network("fd00:2::/64"),
    address=IPv6Address("2001:db8::2"),
    next_hop=IPv6Address("fe80::1"),
    ifindex=9,
    mtu=1430,
    slot=7,
    vtep_mac="0e:ff:00:00:00:06",
    way=Way.DIRECT,
)
POD6 = Pod(
    address=IPv6Address("fd00:1::5"),
    ifindex=NEIGHBOUR_VETH,
    bridge=78,
    mtu=1430,
    mac="0a:ff:00:00:00:06",
    gateway_mac="0a:ff:00:00:00:01",
    owner=3,
    guard=Guard.FROM_POD | Guard.TO_POD,
)


@pytest.fixture
def maps(node: Node, bench: Bench) -> Iterator[Maps]:
    """The maps, holding nothing but settings."""
    empty = World(peers=(), pods=())
    node.chamber.run(stand, bench.maps, empty)
    yield bench.maps
    node.chamber.run(stand, bench.maps, empty)


def vteps(maps: Maps) -> dict[bytes, int]:
    """Address -> slot, as the programs see it."""
    entries = batches.map_entries(maps._fds["vteps"], 16, 4)
    return {key: int.from_bytes(value, "little") for key, value in entries}


def mapped(address: IPv4Address) -> bytes:
    """An IPv4 address among addresses of 16 bytes."""
    return bytes(10) + b"\xff\xff" + address.packed


def test_peers(maps: Maps) -> None:
    """Peers of both families come back as they were put, and each has a VTEP entry."""
    for peer in (PEER, PEER6):
        maps.put_peer(peer)
    assert maps.peers() == {PEER.cidr: PEER, PEER6.cidr: PEER6}
    assert isinstance(PEER6.address, IPv6Address)
    assert vteps(maps) == {mapped(PEER.address): PEER.slot, PEER6.address.packed: PEER6.slot}
    maps.delete_peer(PEER.cidr)
    assert maps.peers() == {PEER6.cidr: PEER6}
    assert vteps(maps) == {PEER6.address.packed: PEER6.slot}
    maps.delete_peer(PEER.cidr)


def test_peer_moves(maps: Maps) -> None:
    """A peer that has another address now leaves no VTEP entry under the old one."""
    maps.put_peer(PEER)
    moved = replace(PEER, address=IPv4Address("192.168.77.22"))
    maps.put_peer(moved)
    assert maps.peers() == {PEER.cidr: moved}
    assert vteps(maps) == {mapped(moved.address): PEER.slot}


def test_address_taken_over(maps: Maps) -> None:
    """Deleting a peer leaves the VTEP entry to the peer that has its address now."""
    heir = replace(PEER, cidr=IPv4Network("10.42.9.0/24"), slot=9)
    maps.put_peer(PEER)
    maps.put_peer(heir)
    maps.delete_peer(PEER.cidr)
    assert vteps(maps) == {mapped(PEER.address): heir.slot}


def test_wider_peer_is_another(maps: Maps) -> None:
    """Deleting a CIDR that is not there leaves the wider one that holds it alone."""
    wide = replace(PEER, cidr=IPv4Network("10.42.0.0/16"))
    maps.put_peer(wide)
    maps.delete_peer(PEER.cidr)
    maps.put_peer(replace(PEER, address=IPv4Address("192.168.77.22"), slot=9))
    assert maps.peers().keys() == {wide.cidr, PEER.cidr}
    assert vteps(maps)[mapped(PEER.address)] == wide.slot


def test_pods(maps: Maps) -> None:
    """Pods of both families come back as they were put, guards too."""
    for pod in (POD, POD6):
        maps.put_pod(pod)
    maps.put_pod(replace(POD, guard=Guard.TO_POD))
    assert maps.pods() == {POD.address: replace(POD, guard=Guard.TO_POD), POD6.address: POD6}
    maps.delete_pod(POD.address)
    maps.delete_pod(POD.address)
    assert maps.pods() == {POD6.address: POD6}


def test_settings(maps: Maps) -> None:
    """Settings come back as they were put."""
    wanted = replace(settings(World(), time.monotonic_ns()), has_direct=True, epoch=2**32 - 1)
    maps.put_settings(wanted)
    assert maps.settings() == wanted


def test_flows(maps: Maps) -> None:
    """A flow record is read with ports in host order and its times in ns."""
    put_flow(maps, Approval(tuple=UDP_FLOW, out=2, into=None), 10**10, World())
    assert list(maps.flows()) == [
        Flow(
            tuple=Tuple(POD.address, IPv4Address("10.42.2.7"), 40001, 53, UDP),
            seen_out=8 * 10**9,
            seen_in=0,
            used=0,
            epoch=7,
            ifindex=VETH,
            nic=PEER.ifindex,
            next_hop=PEER.next_hop,
            source_port=World().source_port,
            mtu=PEER.mtu,
            way=Way.TUNNEL,
            is_open=True,
            behind=Tuple(POD.address, IPv4Address("10.42.2.7"), 40001, 53, UDP),
            is_confirmed=True,
        )
    ]


def test_one_flow(maps: Maps) -> None:
    """A record is found by its own 5-tuple, and by the one behind netfilter as packets enter."""
    behind = Tuple(POD.address, PEER.cidr[7], 40002, 8080, UDP)
    served = Tuple(POD.address, IPv4Address("10.96.0.10"), 40002, 80, UDP)
    for each in (Approval(tuple=UDP_FLOW), Approval(tuple=served, behind=behind)):
        put_flow(maps, each, time.monotonic_ns(), APPROVED)
    plain, translated = maps.flow(UDP_FLOW), maps.flow(served)
    assert plain
    assert translated
    assert (plain.tuple, translated.tuple, translated.behind) == (UDP_FLOW, served, behind)
    assert maps.flow(behind) is None
    assert maps.flow_behind(UDP_FLOW) == plain
    assert maps.flow_behind(behind) == translated
    assert maps.flow_behind(served) is None
    assert {flow.tuple for flow in maps.flows_between(POD.address, PEER.cidr[7])} == {
        UDP_FLOW,
        served,
    }
    assert [*maps.flows_between(POD.address, served.remote)] == [translated]
    assert [*maps.flows_between(served.remote, POD.address)] == []


def test_one_flow_of_two_pods(maps: Maps) -> None:
    """A record of two pods of this node is found as each of the two has it."""
    service = IPv4Address("10.96.0.10")
    served = Approval(
        tuple=replace(LOCAL_UDP, remote=service, local_port=1),
        behind=replace(LOCAL_UDP, local_port=1),
    )
    for each in (Approval(tuple=LOCAL_UDP), served):
        put_flow(maps, replace(each, into=3), 10**10, World())
        there, back = maps.flow(each.tuple), maps.flow(each.mirrored.tuple)
        assert there
        assert back
        assert (there.tuple, back.tuple) == (each.tuple, each.mirrored.tuple)
        assert (there.ifindex, there.nic) == (back.nic, back.ifindex) == (VETH, NEIGHBOUR_VETH)
        assert (there.seen_out, there.seen_in) == (back.seen_in, back.seen_out)
        assert there.behind == back.tuple.reversed
        assert back.behind == there.tuple.reversed
        assert there.views == (there, back)
    assert {one.tuple for one in maps.flows_between(NEIGHBOUR.address, POD.address)} == {
        LOCAL_UDP.reversed,
        served.mirrored.tuple,
    }
    assert [one.tuple for one in maps.flows_between(POD.address, service)] == [served.tuple]


def test_peer_of_an_address_and_veth_of_a_pod(maps: Maps) -> None:
    """An address has the peer that the programs find, and a pod a veth as long as it is noted."""
    maps.put_peer(PEER)
    found = maps.peer_of(PEER.cidr[9])
    assert found
    assert replace(found, cidr=PEER.cidr) == PEER
    assert maps.peer_of(IPv4Address("10.99.0.1")) is None
    maps.put_pod(POD)
    assert maps.has_veth(POD.ifindex)
    maps.delete_veth(POD.ifindex)
    assert not maps.has_veth(POD.ifindex)


def test_more_flows_than_one_batch(maps: Maps) -> None:
    """Ten thousand records are each read once; resets are each told once, and then are gone."""
    tuples = {replace(UDP_FLOW, local_port=port) for port in range(5_000)}
    # As many of which the pod is the high end of the key.
    tuples |= {replace(flow, remote=IPv4Address("10.42.2.1")) for flow in tuples}
    for flow in tuples:
        put_flow(maps, Approval(tuple=flow, out=2, into=None), 10**10, World())
    read = [flow.tuple for flow in maps.flows()]
    assert len(read) == 10_000
    assert set(read) == tuples
    for flow in tuples:
        reset = bytes(HEADER.structs["reset"](side=flow.side))
        syscall.map_update(maps._fds["resets"], flow.key, reset)
    taken = maps.take_resets()
    assert len(taken) == 10_000
    assert set(taken) == tuples
    assert maps.take_resets() == []


def test_counters_of_all_cpus(bench: Bench, maps: Maps) -> None:
    """What programs count on different CPUs is one sum."""
    stand(maps, APPROVED)
    frame = bytes(sent(DATAGRAM))
    allowed = os.sched_getaffinity(0)
    with bench.counting() as moved:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            bench.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH))
    os.sched_setaffinity(0, allowed)
    times = len(allowed)
    key = Program.FROM_POD, Verdict.ENCAPSULATED
    assert moved.verdicts == {key: Count(times, times * len(frame))}
    assert moved.peers == {PEER.slot: PeerCount(times, times * len(frame), 0, 0)}


def test_peer_counter_of_a_slot_used_again(bench: Bench, maps: Maps) -> None:
    """A cleared slot counts from zero on every CPU."""
    stand(maps, APPROVED)
    bench.runners[Program.FROM_POD].run(bytes(sent(DATAGRAM)), Context(ifindex=VETH))
    assert maps.peer_counts()[PEER.slot].tx_packets
    maps.clear_peer_count(PEER.slot)
    assert maps.peer_counts()[PEER.slot] == PeerCount(0, 0, 0, 0)


def test_every_counter_is_there(maps: Maps) -> None:
    """Each program has a counter for each verdict, moved or not."""
    counters = maps.counters()
    assert set(counters) == set(Program)
    assert all(set(counts) == set(Verdict) for counts in counters.values())


def test_full_map(bench: Bench, maps: Maps) -> None:
    """One pod more than the map holds is refused with advice, and the others stay."""
    room = maps.capacity("pods")
    assert room == bench.constants.max_pods
    pods = [replace(POD, address=POD.address + number) for number in range(room + 1)]
    for pod in pods[:room]:
        maps.put_pod(pod)
    with pytest.raises(KernelError, match=r"write a map entry: .*; a full map takes no more"):
        maps.put_pod(pods[room])
    assert len(maps.pods()) == room


@pytest.mark.usefixtures("node")
def test_nothing_pinned(tmp_path: Path) -> None:
    """Where no programs were ever loaded, opening says that there is no such file."""
    with pytest.raises(FileNotFoundError):
        Maps.open(tmp_path)


def test_pinned(bench: Bench, tmp_path: Path) -> None:
    """Maps know whether they are the ones that are pinned, or others are, or none."""
    assert not bench.maps.are_pinned(tmp_path)
    ensure_bpffs(tmp_path / "bpf")
    for name, pinned in (("tracer", True), ("pods", False)):
        syscall.obj_replace(bench.maps._fds[name], tmp_path / "bpf" / "tracer")
        assert bench.maps.are_pinned(tmp_path / "bpf") is pinned


def test_other_layout(bench: Bench, tmp_path: Path) -> None:
    """A pinned map of another layout is refused by name, with the way out."""
    ensure_bpffs(tmp_path / "bpf")
    for name, pinned in bench.maps._fds.items():
        syscall.obj_pin(pinned, tmp_path / "bpf" / name)
    # BPF_MAP_CREATE of a hash with keys of 16 and values of 20 bytes.
    made, _ = syscall._bpf(0, struct.pack("=IIIII", 1, 16, 20, 1, 0))
    syscall.obj_replace(made, tmp_path / "bpf" / "pods")
    os.close(made)
    with pytest.raises(
        ContractError, match="pinned map pods has keys of 16 and values of 20 bytes, not 16 and 40"
    ):
        Maps.open(tmp_path / "bpf")
