# SPDX-License-Identifier: Apache-2.0
"""The map of peers, made equal to the overlay's paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

import pytest
from memorymaps import Bpf, in_memory
from overlaystate import OVERLAY

from vxlane.bypass.peers import PeerKeeper, Slots
from vxlane.datapath.abi import Way
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Peer
from vxlane.host.nexthops import NextHop
from vxlane.overlay.backend import OverlayState
from vxlane.overlay.desired import OwnRouting, Path, exits_of
from vxlane.sources.model import Backend, Node
from vxlane.util.dirty import Dirty

NIC = 3
MTUS = {NIC: 1500}
ROUTING = OwnRouting(Backend.VXLAN, device=9, routes_directly=False)


def node(number: int, *, address: int = 0) -> Node:
    """Node `number`."""
    return Node(
        f"node{number}",
        IPv4Address(f"192.168.77.{address or number}"),
        IPv4Network(f"10.42.{number}.0/24"),
        f"02:00:00:00:00:{number:02x}",
    )


def path(number: int, *, address: int = 0) -> Path:
    """The way to node `number`, on the link."""
    peer = node(number, address=address)
    return ROUTING.path(peer, NextHop(NIC, peer.address))


def overlay(paths: Iterable[Path]) -> OverlayState:
    """This node's overlay with these paths."""
    made = tuple(paths)
    return dataclasses.replace(OVERLAY, underlay=NIC, paths=made, exits=exits_of(made))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> tuple[Maps, Bpf]:
    """Maps in memory, and what is behind them."""
    return in_memory(monkeypatch)


def known(maps: Maps) -> dict[str, int]:
    """Slots by CIDR."""
    return {str(peer.cidr): peer.slot for peer in maps.peers().values()}


def test_a_peer_is_told_with_its_way(memory: tuple[Maps, Bpf]) -> None:
    """Address, next hop, NIC, VTEP MAC, and the largest inner packet."""
    maps, _ = memory
    PeerKeeper(maps).apply(overlay([path(2)]), MTUS)
    assert list(maps.peers().values()) == [
        Peer(
            cidr=IPv4Network("10.42.2.0/24"),
            address=IPv4Address("192.168.77.2"),
            next_hop=IPv4Address("192.168.77.2"),
            ifindex=NIC,
            mtu=1450,
            slot=0,
            vtep_mac="02:00:00:00:00:02",
            way=Way.TUNNEL,
        )
    ]


def test_what_did_not_change_is_not_written(memory: tuple[Maps, Bpf]) -> None:
    """The very same paths cost no write, nor do equal ones; a changed one costs its own."""
    maps, bpf = memory
    keeper = PeerKeeper(maps)
    paths = [path(2), path(3)]
    keeper.apply(overlay(paths), MTUS)
    bpf.writes.clear()
    keeper.apply(overlay(paths), MTUS)
    keeper.apply(overlay([path(2), paths[1]]), MTUS)
    assert bpf.writes == []
    keeper.apply(overlay([paths[0], path(3, address=33)]), MTUS)
    assert bpf.writes.count(("put", "peers")) == 1


def test_who_left_is_removed_and_a_slot_used_again_counts_from_zero(
    memory: tuple[Maps, Bpf],
) -> None:
    """What the programs count for a new peer is not what an old one had."""
    maps, bpf = memory
    bpf.capacity["peer_counters"] = 3
    keeper = PeerKeeper(maps)
    two, three = path(2), path(3)
    keeper.apply(overlay([two, three]), MTUS)
    keeper.apply(overlay([three]), MTUS)
    assert known(maps) == {"10.42.3.0/24": 1}
    bpf.writes.clear()
    keeper.apply(overlay([three, path(4)]), MTUS)
    assert known(maps) == {"10.42.3.0/24": 1, "10.42.4.0/24": 0}
    assert bpf.writes[0] == ("put", "peer_counters")


def test_another_mtu_is_told_to_all(memory: tuple[Maps, Bpf]) -> None:
    """The NIC's, though no path is another."""
    maps, _ = memory
    keeper = PeerKeeper(maps)
    paths = [path(2), path(3)]
    keeper.apply(overlay(paths), MTUS)
    keeper.apply(overlay(paths), {NIC: 1400})
    assert {peer.mtu for peer in maps.peers().values()} == {1350}


def test_a_peer_that_cant_be_reached_is_not_told_of(memory: tuple[Maps, Bpf]) -> None:
    """A path without a way takes an entry away that stood there."""
    maps, _ = memory
    keeper = PeerKeeper(maps)
    keeper.apply(overlay([path(2)]), MTUS)
    other = dataclasses.replace(node(2), backend=Backend.HOST_GW)
    keeper.apply(overlay([ROUTING.path(other, NextHop(NIC, other.address))]), MTUS)
    assert maps.peers() == {}


def test_peers_beyond_the_maps_room_are_told_and_come_in_later(memory: tuple[Maps, Bpf]) -> None:
    """Who did not fit is named; once another leaves it gets the room, though it did not change."""
    maps, bpf = memory
    bpf.capacity["peer_counters"] = 2
    keeper = PeerKeeper(maps)
    two, three = path(2), path(3)
    [problem] = keeper.apply(overlay([two, three]), MTUS)
    assert (problem.node, problem.reason) == (
        "node3",
        "the map of peers is full; its packets take the kernel path",
    )
    assert len(keeper.apply(overlay([three]), MTUS)) == 1  # the room is free only after this
    assert keeper.apply(overlay([three]), MTUS) == []
    assert list(known(maps)) == ["10.42.3.0/24"]


def test_a_start_takes_over_what_is_pinned(memory: tuple[Maps, Bpf]) -> None:
    """Peers keep their slots over a restart, and who left meanwhile goes."""
    maps, bpf = memory
    PeerKeeper(maps).apply(overlay([path(2), path(3), path(4)]), MTUS)
    bpf.writes.clear()
    PeerKeeper(maps).apply(overlay([path(4), path(5), path(3)]), MTUS)
    assert known(maps) == {"10.42.3.0/24": 1, "10.42.4.0/24": 2, "10.42.5.0/24": 3}
    assert bpf.writes.count(("put", "peers")) == 1


def test_what_others_changed_is_found_and_put_right(memory: tuple[Maps, Bpf]) -> None:
    """An entry that was changed or taken away is told of once; reading again mends it."""
    maps, _ = memory
    keeper = PeerKeeper(maps)
    paths = [path(2), path(3)]
    keeper.apply(overlay(paths), MTUS)
    assert set(keeper.resync()) == {Dirty(0)}
    maps.delete_peer(IPv4Network("10.42.3.0/24"))
    assert set(keeper.resync()) == {Dirty.MAPS}
    keeper.read()
    keeper.apply(overlay(paths), MTUS)
    assert len(maps.peers()) == 2
    assert set(keeper.resync()) == {Dirty(0)}


def test_each_change_is_a_line_of_the_log_up_to_fifty(
    memory: tuple[Maps, Bpf], caplog: pytest.LogCaptureFixture
) -> None:
    """What was put and why, what was removed; of more than fifty the number."""
    maps, _ = memory
    caplog.set_level("INFO")
    keeper = PeerKeeper(maps)
    keeper.apply(overlay([path(2)]), MTUS)
    keeper.apply(overlay([path(2, address=22)]), MTUS)
    keeper.apply(overlay([]), MTUS)
    shown = "peer 10.42.2.0/24 tunnel to 192.168.77.{0} via 192.168.77.{0} #3"
    made, changed, gone = caplog.messages
    assert made.startswith(f"put {shown.format(2)}")
    assert made.endswith("MAC 02:00:00:00:00:02 MTU 1450: missing")
    assert f": was {shown.format(2)}" in changed
    assert gone.startswith(f"remove {shown.format(22)}")
    caplog.clear()
    keeper.apply(overlay(map(path, range(2, 54))), MTUS)
    assert len(caplog.messages) == 51
    assert caplog.messages[-1] == "... and 2 more changes of peers"


def test_two_peers_may_swap_their_addresses(memory: tuple[Maps, Bpf]) -> None:
    """Each VTEP leads to the slot of the peer that has its address now."""
    maps, bpf = memory
    keeper = PeerKeeper(maps)
    keeper.apply(overlay([path(2), path(3)]), MTUS)
    keeper.apply(overlay([path(2, address=3), path(3, address=2)]), MTUS)
    slots = {key[-1]: value[0] for key, value in bpf.entries["vteps"].items()}
    assert slots == {3: 0, 2: 1}


def test_slots_are_used_again_as_late_as_can_be() -> None:
    """A freed slot is the last to be taken, and a full map has none."""
    slots = Slots([0, 2], capacity=4)
    assert (slots.take(), slots.take(), slots.take()) == (1, 3, None)
    slots.give_back(2)
    slots.give_back(0)
    assert (slots.take(), slots.take(), slots.take()) == (2, 0, None)
