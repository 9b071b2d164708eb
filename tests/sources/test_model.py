# SPDX-License-Identifier: Apache-2.0
"""Which claims of nodes stand when two of them contradict each other."""

from __future__ import annotations

import dataclasses
import random
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.errors import ConfigError
from vxlane.sources.claims import Claims
from vxlane.sources.model import (
    Node,
    Problem,
    derived_mac,
    parse_address,
    parse_cidr,
    parse_mac,
)
from vxlane.sources.snapshot import NOTHING_READ, agree, remembered


def node(number: int, *, name: str = "", **changes: str) -> Node:
    """Node `number` of a tidy cluster, with `changes` as text."""
    name = name or f"node{number}"
    return Node(
        name=name,
        address=IPv4Address(changes.get("address", f"192.168.77.{number}")),
        pod_cidr=IPv4Network(changes.get("pod_cidr", f"10.42.{number}.0/24")),
        vtep_mac=changes.get("vtep_mac", derived_mac(name)),
    )


def test_own_node_is_apart_from_its_peers() -> None:
    """The node of the given name is `own`, the others are peers."""
    snapshot = agree([node(2), node(1), node(3)], "node1", read_at=7.0)
    assert snapshot.own == node(1)
    assert snapshot.peers == (node(2), node(3))
    assert snapshot.problems == ()
    assert snapshot.read_at == 7.0


@pytest.mark.parametrize(
    ("newcomer", "reason"),
    [
        (node(9, pod_cidr="10.42.2.0/24"), "overlaps 10.42.2.0/24 of node 'node2'"),
        (node(9, pod_cidr="10.42.2.128/25"), "overlaps 10.42.2.0/24 of node 'node2'"),
        (node(9, pod_cidr="10.42.2.0/23"), "overlaps 10.42.2.0/24 of node 'node2'"),
        (node(9, vtep_mac=derived_mac("node2")), "is that of node 'node2'"),
        (node(9, name="node2"), "is listed twice"),
        (node(9, address="10.42.2.7"), "lies in the pod CIDR of node 'node2'"),
        (node(9, pod_cidr="192.168.77.0/29"), "holds the address of node 'node1'"),
    ],
    ids=["same", "inside", "around", "mac", "name", "underlay-in-pods", "pods-over-it"],
)
def test_a_contradiction_names_both_and_spares_the_rest(newcomer: Node, reason: str) -> None:
    """Of two nodes that claim the same thing the first keeps it and the other is reported."""
    snapshot = agree([node(1), node(2), newcomer, node(3)], "node1")
    assert snapshot.peers == (node(2), node(3))
    [problem] = snapshot.problems
    assert problem.node == newcomer.name
    assert reason in problem.reason


@pytest.mark.parametrize("first", ["node2", "node9"])
def test_a_shared_address_takes_nobody_away(first: str) -> None:
    """Two nodes with one address are both served and reported, until one of them goes."""
    twins = sorted([node(2), node(9, address="192.168.77.2")], key=lambda n: n.name != first)
    both = agree([node(1), *twins, node(3)], "node1")
    assert both.peers == (*twins, node(3))
    [problem] = both.problems
    assert problem.node == twins[1].name
    assert f"address 192.168.77.2 is that of node {first!r} too" in problem.reason
    for left in twins:
        after = agree([node(1), left, node(3)], "node1", previous=both)
        assert (set(after.peers), after.problems) == ({left, node(3)}, ())


def test_a_renamed_node_keeps_its_mac() -> None:
    """Two objects with one address and one MAC, those of a node that was renamed, are served."""
    old = node(2)
    new = node(9, address="192.168.77.2", vtep_mac=old.vtep_mac)
    both = agree([node(1), old, new], "node1")
    assert both.peers == (old, new)
    for left in (old, new):
        after = agree([node(1), left], "node1", previous=both)
        assert (after.peers, after.problems) == ((left,), ())
        thief = node(8, vtep_mac=old.vtep_mac)
        assert agree([node(1), left, thief], "node1", previous=after).peers == (left,)


@pytest.mark.parametrize("first", ["node1", "node9"])
def test_an_old_object_of_this_node_is_no_peer(first: str) -> None:
    """What has this node's own address is reported and not routed to: it would be to ourselves."""
    old = node(9, address="192.168.77.1", vtep_mac=node(1).vtep_mac)
    nodes = sorted([node(1), old], key=lambda n: n.name != first)
    snapshot = agree([*nodes, node(2)], "node1")
    assert (snapshot.own, snapshot.peers) == (node(1), (node(2),))
    [problem] = snapshot.problems
    assert problem.node == "node9"
    assert "192.168.77.1 is this node's own" in problem.reason


def test_no_old_object_of_this_node_is_a_peer_while_its_own_is_refused() -> None:
    """All that have this node's address are left out, though this node is weighed after them."""
    before = agree([node(1), node(4)], "node1")
    refused = Problem("node1", "annotation backend-data is not JSON")
    stale = [node(number, address="192.168.77.1") for number in (2, 3)]
    snapshot = agree([*stale, node(4)], "node1", problems=[refused], previous=before)
    assert (snapshot.own, snapshot.peers) == (node(1), (node(4),))
    assert [problem.node for problem in snapshot.problems] == ["node1", "node2", "node3"]


@pytest.mark.parametrize("forged", ["vtep_mac", "pod_cidr", "address"])
def test_a_forged_claim_removes_no_served_peer_after_a_restart(forged: str) -> None:
    """An older object that claims a served peer's MAC, pods or address does not displace it."""
    served = remembered(node(1), [node(2), node(3)], None)
    thief = node(9, **{forged: str(getattr(node(2), forged))})
    snapshot = agree([thief, node(1), node(2), node(3)], "node1", previous=served)
    assert snapshot.own == node(1)
    assert set(snapshot.peers) >= {node(2), node(3)}
    assert [problem.node for problem in snapshot.problems] == ["node9"]


def test_a_refused_entry_keeps_what_was_served_before_a_restart() -> None:
    """An agent that starts while a peer's entry is unusable serves the peer as before."""
    served = remembered(node(1), [node(2), node(3)], None)
    problem = Problem("node3", "annotation backend-data is not JSON")
    snapshot = agree([node(1), node(2)], "node1", problems=[problem], previous=served)
    assert snapshot.peers == (node(2), node(3))
    assert agree([node(1), node(2)], "node1", previous=served).peers == (node(2),)


def test_own_claim_beats_a_peer_listed_first() -> None:
    """This node keeps its pod CIDR whatever the order of the list."""
    snapshot = agree([node(2, pod_cidr="10.42.1.0/24"), node(1)], "node1")
    assert snapshot.own == node(1)
    assert snapshot.peers == ()
    assert [p.node for p in snapshot.problems] == ["node2"]


def test_what_stood_before_beats_a_newcomer_listed_first() -> None:
    """A new node that takes a serving peer's pod CIDR does not get it."""
    before = agree([node(1), node(2)], "node1")
    thief = node(9, pod_cidr="10.42.2.0/24")
    snapshot = agree([thief, node(1), node(2)], "node1", previous=before)
    assert snapshot.peers == (node(2),)
    assert [p.node for p in snapshot.problems] == ["node9"]


def test_a_refused_entry_keeps_its_last_good_state() -> None:
    """A peer whose new entry is unusable or contradicts another stays as it was."""
    before = agree([node(1), node(2), node(3)], "node1")
    overlapping = node(3, pod_cidr="10.42.2.0/24")
    snapshot = agree([node(1), node(2), overlapping], "node1", previous=before)
    assert snapshot.peers == (node(2), node(3))
    unusable = Problem("node3", "address is missing")
    snapshot = agree([node(1), node(2)], "node1", problems=[unusable], previous=before)
    assert snapshot.peers == (node(2), node(3))
    assert snapshot.problems == (unusable,)


def test_a_changed_entry_replaces_the_last_good_state() -> None:
    """A peer that moves to a free pod CIDR moves."""
    before = agree([node(1), node(2)], "node1")
    moved = node(2, pod_cidr="10.42.8.0/24")
    assert agree([node(1), moved], "node1", previous=before).peers == (moved,)


def test_two_peers_may_swap_pod_cidrs() -> None:
    """Claims are weighed as they are now: what a changed peer gave up is free."""
    before = agree([node(1), node(2), node(3)], "node1")
    swapped = [node(2, pod_cidr="10.42.3.0/24"), node(3, pod_cidr="10.42.2.0/24")]
    snapshot = agree([node(1), *swapped], "node1", previous=before)
    assert snapshot.peers == tuple(swapped)
    assert snapshot.problems == ()


def test_claims_carried_along_are_claims_made_anew() -> None:
    """However the set changes: what is judged by the last agreement is judged as by a fresh one."""
    chance = random.Random(1)
    snapshot = NOTHING_READ
    cidrs = ["10.42.{}.0/24", "10.42.{}.0/23", "10.42.{}.128/25"]
    for _ in range(300):
        nodes = [
            node(
                number,
                address=f"192.168.77.{chance.choice([number, chance.randrange(1, 9)])}",
                pod_cidr=cidrs[0].format(number)
                if chance.random() < 0.7
                else chance.choice(cidrs).format(2 * chance.randrange(4)),
            )
            for number in chance.sample(range(1, 9), 6)
        ]
        nodes = [next((n for n in snapshot.peers if n == each), each) for each in nodes]
        anew = Claims()
        for each in snapshot.claims.names.values():
            anew.take(each)
        fresh = agree(nodes, "node1", previous=dataclasses.replace(snapshot, claims=anew))
        snapshot = agree(nodes, "node1", previous=snapshot)
        assert snapshot == fresh
        everyone = [*([snapshot.own] if snapshot.own else []), *snapshot.peers]
        assert {each.name for each in everyone} == snapshot.claims.names.keys()
        problems = [
            p for p in agree(everyone, "node1").problems if "both are served" not in p.reason
        ]
        assert {problem.node for problem in problems} <= {"node1"}


def test_what_did_not_change_stays_the_same_object_in_its_place() -> None:
    """Also when all entries were parsed anew; a changed one takes the place of its last state."""
    before = agree([node(1), node(2), node(3), node(4)], "node1")
    after = agree(
        [node(4), node(1), node(3, address="192.168.77.9"), node(2)], "node1", previous=before
    )
    assert [peer.name for peer in after.peers] == ["node2", "node3", "node4"]
    assert after.peers[0] is before.peers[0]
    assert after.peers[2] is before.peers[2]


def test_a_missing_own_node_is_reported() -> None:
    """Without an entry for this node there is no own node, and the report says so."""
    snapshot = agree([node(2)], "node1")
    assert snapshot.own is None
    reason = "is this node, and it has no entry of its own; is --node-name right?"
    assert snapshot.problems == (Problem("node1", reason),)


def test_own_pods_must_be_inside_the_network() -> None:
    """An own pod CIDR outside the network is refused, as flannel refuses its lease."""
    snapshot = agree([node(1)], "node1", network=IPv4Network("10.99.0.0/16"))
    assert snapshot.own is None
    assert "10.42.1.0/24 is not inside the network 10.99.0.0/16" in snapshot.problems[0].reason


def test_a_derived_mac_is_stable_local_and_unicast() -> None:
    """Every node derives the same MAC from a name: locally administered, unicast."""
    assert derived_mac("node1") == "4e:7c:14:0e:6a:a6"
    assert all(int(derived_mac(f"n{i}")[:2], 16) & 3 == 2 for i in range(100))


@pytest.mark.parametrize("text", ["0e:29:66:26:fa", "0e:29:66:26:fa:6g", "01:00:5e:00:00:01", "x"])
def test_a_malformed_mac_is_refused(text: str) -> None:
    """Only six octets of a unicast address are a VTEP MAC."""
    with pytest.raises(ConfigError, match="MAC"):
        parse_mac(text)


def test_a_mac_is_normalised() -> None:
    """Upper case and dashes are the same MAC."""
    assert parse_mac("0E-29-66-26-FA-6D") == "0e:29:66:26:fa:6d"


@pytest.mark.parametrize("text", ["192.168.77", "fe80::1", "224.0.0.1", "0.0.0.0", "127.0.0.1"])
def test_a_useless_address_is_refused(text: str) -> None:
    """Only a unicast IPv4 address can be a node's underlay address."""
    with pytest.raises(ConfigError, match="address"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        *("10.42.1.5/24", "10.42.1.0/33", "10.42.1.0/31", "0.0.0.0/0"),
        *("0.0.0.0/8", "127.1.0.0/24", "224.0.0.0/24"),
    ],
)
def test_a_useless_cidr_is_refused(text: str) -> None:
    """A pod CIDR is a network without host bits that has room for pods, and can be routed to."""
    with pytest.raises(ConfigError, match="pod CIDR"):
        parse_cidr(text)
