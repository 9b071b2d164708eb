# SPDX-License-Identifier: Apache-2.0
"""Facts of a flow that is bypassed, for tests that change one of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from vxlane.datapath.abi import Guard, Way
from vxlane.datapath.records import Flow, Peer, Pod, Settings, Tuple
from vxlane.host.connections import Connection
from vxlane.why.facts import Facts

SECOND = 1_000_000_000
NOW = 1000 * SECOND
TCP, UDP, ICMP = 6, 17, 1
NODE, PEER_NODE = IPv4Address("192.168.77.11"), IPv4Address("192.168.77.12")
HERE, BESIDE, THERE = map(IPv4Address, ("10.42.1.2", "10.42.1.3", "10.42.2.2"))
VIRTUAL = IPv4Address("10.96.0.10")
MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"

SETTINGS = Settings(NOW + SECOND, 30 * SECOND, 10 * SECOND, NODE, 3, MAC)
POD = Pod(HERE, 5, 4, 1450, MAC, OTHER_MAC, Guard(0), owner=1)
NEIGHBOUR = Pod(BESIDE, 6, 4, 1450, OTHER_MAC, OTHER_MAC, Guard(0), owner=2)
PEER = Peer(IPv4Network("10.42.2.0/24"), PEER_NODE, PEER_NODE, 2, 1450, 0, MAC)


def tuple_to(remote, protocol=TCP, port=80):
    """A flow of HERE's."""
    return Tuple(HERE, remote, 40000, 8 if protocol == ICMP else port, protocol)


def record_of(flow, behind=None, **changes):
    """Its record, both halves seen a second ago."""
    way = Way.LOCAL if (behind or flow).remote == BESIDE else Way.TUNNEL
    made = Flow(
        tuple=flow,
        seen_out=NOW - SECOND,
        seen_in=NOW - SECOND,
        used=NOW,
        epoch=SETTINGS.epoch,
        ifindex=POD.ifindex,
        nic=NEIGHBOUR.ifindex if way is Way.LOCAL else 2,
        next_hop=PEER_NODE,
        source_port=50000,
        mtu=1450,
        way=way,
        is_open=True,
        behind=behind or flow,
        is_confirmed=True,
    )
    return replace(made, **changes)


def facts_of(flow, behind=None, *, record=True, **changes):
    """A flow that nothing keeps from being bypassed; `record`: changes of it, or False."""
    behind = behind or flow
    is_local = behind.remote == BESIDE
    known = record_of(flow, behind, **(record if isinstance(record, dict) else {}))
    made = Facts(
        now=NOW,
        settings=SETTINGS,
        tuple=flow,
        behind=behind,
        pod=POD,
        mac=MAC,
        peer=PEER if flow.remote == THERE else None,
        far_peer=PEER if behind.remote == THERE else None,
        neighbour=NEIGHBOUR if flow.remote == BESIDE else None,
        receiver=NEIGHBOUR if is_local else None,
        record=known if record else None,
        entering=known if record else None,
    )
    return replace(made, **changes)


def connection_of(flow, state="established", behind=None):
    """The entry that conntrack has of it, which the pod began."""
    answered = (behind or flow).reversed
    return Connection(
        flow, answered, state, is_answered=True, is_assured=True, timeout=100, traffic=None
    )
