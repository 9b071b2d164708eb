# SPDX-License-Identifier: Apache-2.0
"""What is read of conntrack, in a namespace whose netfilter follows what the test sends."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from vxlane.host import connections
from vxlane.host.connections import ConnectionReader
from vxlane.util.five_tuple import FiveTuple

HERE, THERE, VIRTUAL = map(IPv4Address, ("127.0.0.2", "127.0.0.3", "127.0.0.9"))
ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
RULES = f"""
table ip t {{
 chain o {{
  type nat hook output priority -100
  ip daddr {VIRTUAL} udp dport 53 dnat to {THERE}:5353
 }}
}}
"""


@pytest.fixture
def reader(netns: str) -> Iterator[ConnectionReader]:
    """Reads conntrack of a namespace in which VIRTUAL:53 is THERE:5353."""
    assert netns
    subprocess.run(["nft", RULES], check=True)
    with contextlib.closing(ConnectionReader()) as made:
        yield made


@contextlib.contextmanager
def bound(address: IPv4Address, port: int) -> Iterator[socket.socket]:
    """A UDP socket that waits 5 s."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(5)
        made.bind((str(address), port))
        yield made


def test_an_entry_is_found_by_either_direction(reader: ConnectionReader) -> None:
    """A translated connection has two tuples, and is found by the packets of both directions."""
    with bound(HERE, 4000) as client, bound(THERE, 5353) as server:
        client.sendto(b"question", (str(VIRTUAL), 53))
        _, whom = server.recvfrom(100)
        original = FiveTuple(HERE, VIRTUAL, 4000, 53, socket.IPPROTO_UDP)
        asked = reader.find(original)
        assert asked
        assert not asked.is_answered
        server.sendto(b"answer", whom)
        client.recvfrom(100)
    answered = reader.find(FiveTuple(THERE, HERE, 5353, 4000, socket.IPPROTO_UDP))
    assert answered
    assert answered.is_answered
    assert answered.original == original
    assert answered.reply.reversed == FiveTuple(HERE, THERE, 4000, 5353, socket.IPPROTO_UDP)
    assert reader.find(FiveTuple(HERE, VIRTUAL, 4001, 53, socket.IPPROTO_UDP)) is None


def test_entries_between_two_addresses(reader: ConnectionReader) -> None:
    """The entries are those that one address began with the other."""
    with bound(HERE, 4000) as client:
        for target in (VIRTUAL, THERE):
            client.sendto(b"?", (str(target), 53))
    (found,) = reader.between(HERE, VIRTUAL)
    assert found.original.remote == VIRTUAL
    assert list(reader.between(VIRTUAL, HERE)) == []
    assert {entry.original.remote for entry in reader.all()} >= {VIRTUAL, THERE}


def test_traffic_is_there_where_conntrack_counts(reader: ConnectionReader) -> None:
    """Packets and bytes of both directions are known where nf_conntrack_acct is on."""
    assert not connections.counts()
    with bound(HERE, 4000) as client, bound(THERE, 5353) as server:
        client.sendto(b"uncounted", (str(THERE), 9))
        ACCOUNTING.write_text("1")
        assert connections.counts()
        client.sendto(bytes(100), (str(VIRTUAL), 53))
        server.sendto(bytes(50), server.recvfrom(200)[1])
        client.recvfrom(100)
    (counted,) = reader.between(HERE, VIRTUAL)
    assert counted.traffic == connections.Traffic(packets=2, bytes=2 * 28 + 150)
    (uncounted,) = (each for each in reader.between(HERE, THERE) if each.original.remote_port == 9)
    assert uncounted.traffic is None
    assert reader.idle_seconds(counted) in {0, 1}


def test_tcp_has_a_state(reader: ConnectionReader) -> None:
    """The state of a TCP connection goes by the kernel's name for it."""
    with socket.create_server((str(THERE), 80)) as server:
        client = socket.create_connection((str(THERE), 80), source_address=(str(HERE), 4000))
        with client, server.accept()[0]:
            found = reader.find(FiveTuple(HERE, THERE, 4000, 80, socket.IPPROTO_TCP))
            assert found
            assert found.state == "established"
            assert reader.idle_seconds(found) in {0, 1}


def test_an_echo_has_its_identifier_and_type(reader: ConnectionReader) -> None:
    """An echo is found by its identifier, in the place of ports, and by what its end sends."""
    done = subprocess.run(["ping", "-c1", "-e77", "-I", str(HERE), str(THERE)], check=True)
    assert done.returncode == 0
    request = FiveTuple(HERE, THERE, 77, 8, socket.IPPROTO_ICMP)
    found = reader.find(request)
    assert found
    assert (found.original, found.state) == (request, "")
    assert request.reversed == found.reply
    assert request.reversed.reversed == request
