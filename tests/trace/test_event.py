# SPDX-License-Identifier: Apache-2.0
"""An event as a document and as a line."""

from __future__ import annotations

import ctypes
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from vxlane.datapath.abi import HEADER, Program, Verdict
from vxlane.datapath.records import mapped
from vxlane.trace.event import Event, document, line

SECOND = 10**9
NAMES = {IPv4Address("10.42.1.5"): "default/web"}


def event(*, source: str = "::ffff:10.42.1.5", data: bytes = b"", **fields: Any) -> Event:
    """An event; by default a TCP segment of a pod."""
    base = {
        "ethertype": 0x0800,
        "source_port": 40000,
        "destination_port": 80,
        "has_ports": 1,
        "protocol": 6,
        "tcp_flags": 0x18,
        "length": 84,
        "tunnel": 50,
        "ifindex": 7,
        "captured": len(data),
        "program": Program.FROM_POD,
        "verdict": Verdict.ENCAPSULATED,
    }
    raw = HEADER.structs["trace_event"](**(base | fields))
    for name, address in (("source", source), ("destination", "::ffff:10.42.2.7")):
        ctypes.memmove(getattr(raw, name), mapped(IPv6Address(address)), 16)
    return Event.of(bytes(raw) + data + b"behind")


def told(**fields: Any) -> dict[str, Any]:
    """The document of an event."""
    return document(event(**fields), 5 * SECOND, lambda ifindex: f"veth{ifindex}", NAMES)


def test_document() -> None:
    """Every key of a packet of a flow."""
    assert told(time=SECOND // 2, gso_size=1398, gso_segments=3) == {
        "time": 5.5,
        "hook": "from_pod",
        "interface": "veth7",
        "protocol": "tcp",
        "source": "10.42.1.5",
        "source_port": 40000,
        "source_pod": "default/web",
        "destination": "10.42.2.7",
        "destination_port": 80,
        "destination_pod": None,
        "tcp_flags": "P.",
        "bytes": 84,
        "tunnel": True,
        "gso": {"size": 1398, "segments": 3},
        "verdict": "encapsulated",
        "reason": "bypassed: pod -> NIC",
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "from_pod tcp 10.42.1.5:40000 > 10.42.2.7:80 P. 84 B"),
        (
            {"gso_size": 1398, "gso_segments": 3},
            "from_pod tcp 10.42.1.5:40000 > 10.42.2.7:80 P. 84 B gso 3x1398",
        ),
        ({"has_ports": 0, "protocol": 47}, "from_pod 47 10.42.1.5 > 10.42.2.7 84 B"),
        ({"ethertype": 0x0806}, "from_pod arp 84 B"),
        ({"ethertype": 0x88CC, "program": Program.TO_NIC}, "to_nic   0x88cc 84 B"),
        (
            {"ethertype": 0x86DD, "source": "fd00::1", "protocol": 17},
            "from_pod udp [fd00::1]:40000 > 10.42.2.7:80 84 B",
        ),
    ],
)
def test_line(fields: dict[str, Any], expected: str) -> None:
    """A line has what the packet has, and no column for what it lacks."""
    _, _, rest = line(told(**fields)).partition(" ")
    assert rest == f"{expected}  encapsulated: bypassed: pod -> NIC"


def test_bytes_that_were_captured() -> None:
    """An event has the bytes that were captured, without what pads its record."""
    assert event(data=b"frame").data == b"frame"


def test_every_verdict_has_a_meaning() -> None:
    """Each verdict's comment in the header is its reason in one line."""
    assert all(verdict.meaning and "\n" not in verdict.meaning for verdict in Verdict)
    assert Verdict.NAT.meaning.endswith("translated as netfilter does, e.g. a Service's")
