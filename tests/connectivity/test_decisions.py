# SPDX-License-Identifier: Apache-2.0
"""What is decided about packets, peers and shares."""

from __future__ import annotations

import dataclasses
import socket
import threading
from ipaddress import IPv4Address, IPv4Network

import pytest

from vxlane.connectivity import bypassed, echo, icmp, peers
from vxlane.connectivity.bypassed import Trips
from vxlane.connectivity.peers import Known
from vxlane.datapath.abi import Way
from vxlane.datapath.records import Flow, Peer, Settings, Tuple
from vxlane.errors import ConfigError
from vxlane.host.entries import Route
from vxlane.sources.model import Node

PROBE, REMOTE = IPv4Address("10.42.1.9"), IPv4Address("10.42.2.9")
CIDR, ADDRESS = IPv4Network("10.42.2.0/24"), IPv4Address("192.168.77.12")
MAC, OTHER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:03"
SECOND = 1_000_000_000
NODE = Node("node2", ADDRESS, CIDR, MAC)
PEER = Peer(CIDR, ADDRESS, ADDRESS, 2, 1450, 0, MAC)
ROUTE = Route(int(CIDR.network_address), 24, int(ADDRESS), 2, 0)


@pytest.mark.parametrize("limit", [576, 577, 1000, 1399, 1400])
def test_the_largest_packet_is_found(limit):
    """The search ends at the largest size that is answered, within 12 tries."""
    tried = []

    def answers(size):
        tried.append(size)
        return size <= limit

    assert icmp.largest(answers, 1450) == limit
    assert len(tried) <= 12


def test_a_path_in_order_takes_one_try():
    """A ceiling that is answered is the answer; where not even 576 bytes are, there is none."""
    tried = []
    assert icmp.largest(lambda size: tried.append(size) or True, 1450) == 1450
    assert tried == [1450]
    assert icmp.largest(lambda _: False, 1450) is None


def test_an_echo_is_answered_by_its_own_data():
    """A reply has the request's identifier, number and data; its checksum is the Internet's."""
    request = icmp.message(8, 7, 1, 65)
    reply = icmp.message(0, 7, 1, 65)
    assert len(request) == 65
    assert icmp.checksum(request) == 0
    assert icmp.is_reply(reply, request)
    others = (request, icmp.message(0, 7, 2, 65), icmp.message(0, 8, 1, 65), reply[:-1] + b"x")
    assert not any(icmp.is_reply(other, request) for other in (*others, reply[:-1]))


def trips(*begun):
    """Round trips of one TCP connection, which began at these seconds."""
    return Trips(6, PROBE, REMOTE, 40000, [int(second * SECOND) for second in begun])


def flow(**keys):
    """The connection's record: seen at second 100, used until 101."""
    ends = Tuple(PROBE, REMOTE, 40000, 7, 6)
    values = {
        "seen_out": 100 * SECOND,
        "seen_in": 100 * SECOND,
        "used": 101 * SECOND,
        "epoch": 5,
        "ifindex": 9,
        "nic": 2,
        "next_hop": ADDRESS,
        "source_port": 50000,
        "mtu": 1450,
        "way": Way.TUNNEL,
        "is_open": True,
        "behind": ends,
        "is_confirmed": True,
    }
    return Flow(tuple=ends, **(values | keys))


SETTINGS = Settings(200 * SECOND, 30 * SECOND, 10 * SECOND, ADDRESS, 5, MAC)


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (flow(), 2),
        (flow(seen_in=int(100.3 * SECOND)), 1),
        (flow(seen_out=int(100.3 * SECOND)), 1),
        (flow(seen_in=0), 0),
        (flow(epoch=4), 0),
        (flow(used=int(99.5 * SECOND)), 2),
        (flow(used=98 * SECOND), 0),
        (None, 0),
    ],
)
def test_a_trip_counts_that_began_after_the_last_one_of_the_kernel_path(found, count):
    """What began within a tick after it may be the kernel path's; what is unapproved is so too."""
    assert bypassed.count(found, trips(100.005, 100.2, 100.4), SETTINGS) == count


def test_the_record_is_that_of_the_probes_own_flow():
    """Another port, end or protocol is another flow."""
    others = [
        dataclasses.replace(flow(), tuple=Tuple(*ends))
        for ends in (
            (PROBE, REMOTE, 40001, 7, 6),
            (PROBE, REMOTE, 40000, 7, 17),
            (REMOTE, PROBE, 40000, 7, 6),
        )
    ]
    assert bypassed.record_of(others, trips(1)) is None
    assert bypassed.record_of([*others, flow()], trips(1)) == flow()


@pytest.mark.parametrize(
    ("kernel", "route", "bypass", "said"),
    [
        (NODE, None, PEER, ""),
        (NODE, None, None, ""),
        (None, None, PEER, "no route, neighbour and FDB entry lead together to 10.42.2.0/24"),
        (dataclasses.replace(NODE, vtep_mac=OTHER_MAC), None, PEER, f"sends to {OTHER_MAC}"),
        (NODE, None, dataclasses.replace(PEER, ifindex=0), "no usable way"),
        (None, ROUTE, dataclasses.replace(PEER, way=Way.DIRECT), ""),
        (None, None, dataclasses.replace(PEER, way=Way.DIRECT), "there is no route"),
        (
            None,
            ROUTE._replace(gateway=int(ADDRESS) + 1),
            dataclasses.replace(PEER, way=Way.DIRECT),
            "the route goes by 192.168.77.13, the bypass to 192.168.77.12",
        ),
    ],
)
def test_entries_lead_where_the_bypass_sends(kernel, route, bypass, said):
    """A peer is in order if the kernel's entries lead to it, and the bypass's map does too."""
    found = peers.fault(Known(CIDR, kernel, route, bypass))
    assert (said in found) if said else found == ""


@pytest.mark.parametrize("name", ["node2.example", "192.168.77.12", "10.42.2.0/24", "10.42.2.77"])
def test_a_peer_goes_by_several_names(name):
    """The node's name, the underlay address, the pod CIDR, or the address of one of its pods."""
    known = Known(CIDR, NODE, None, None, "node2.example")
    assert peers.named([known], name) is known


def test_a_host_name_is_resolved(monkeypatch):
    """What the system's resolver knows is a name too; what nothing knows is refused by a list."""
    known = Known(CIDR, NODE, None, None)
    monkeypatch.setattr(socket, "gethostbyname", {"node2": "192.168.77.12"}.get)
    assert peers.named([known], "node2") is known

    def unknown(name):
        raise socket.gaierror(f"{name} not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(ConfigError, match=r'"node4"; its peers are: 192\.168\.77\.12'):
        peers.named([known], "node4")


@pytest.mark.parametrize("name", ["10.42..2", "a" * 64])
def test_what_can_be_no_host_name_is_refused(name):
    """The resolver does not even try an empty label, or one of more than 63 letters."""
    with pytest.raises(ConfigError, match="this node knows no peer"):
        peers.named([Known(CIDR, NODE, None, None)], name)


def test_the_servers_answer_is_compared():
    """A trip counts if the same bytes come back; other bytes are a fault."""
    near, far = socket.socketpair()
    threading.Thread(target=echo._echo, args=[far], daemon=True).start()
    with near:
        begun = echo.round_trips(near, pace=0)
    assert len(begun) == 40
    assert begun == sorted(begun)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(bytes(64))
        with pytest.raises(ValueError, match="came back changed"):
            echo.round_trips(near, pace=0)


def test_a_datagram_that_cant_be_answered_ends_no_server():
    """UDP lets a sender have no port, 0, to which nothing can be sent."""

    class Asked(socket.socket):
        def recvfrom(self, _size):
            return b"question", ("127.0.0.1", 0)

    with Asked(type=socket.SOCK_DGRAM) as datagrams:
        echo._answer(datagrams)


def test_the_largest_datagram_fills_the_path():
    """IP and UDP headers and the data make a packet of the path's MTU."""
    assert echo.datagram_sizes(1450)[-1] == 1450 - 20 - 8
