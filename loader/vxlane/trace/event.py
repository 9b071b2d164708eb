# SPDX-License-Identifier: Apache-2.0
"""One packet at the end of one program: read from the tracer's bytes, and told to a person."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from ipaddress import IPv6Address
from typing import Any

from vxlane.datapath.abi import HEADER, Program, Verdict
from vxlane.datapath.records import IPAddress

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}
_LABELS = {number: name for name, number in PROTOCOLS.items()} | {socket.IPPROTO_ICMPV6: "icmpv6"}
_STRUCT = HEADER.structs["trace_event"]
_SIZE = ctypes.sizeof(_STRUCT)
_TAG = struct.Struct("!HH")
_IP = {0x0800, 0x86DD}
_FLAGS = "FSRP.UEW"
"""From the lowest bit on, as tcpdump writes them: `.` is ACK."""
_SECOND = 1_000_000_000

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """A packet as it left a program."""

    time: int
    """Ns, CLOCK_MONOTONIC."""
    program: Program
    verdict: Verdict
    ethertype: int
    source: IPAddress | None
    """None: the packet is not IP."""
    destination: IPAddress | None
    protocol: int
    ports: tuple[int, int] | None
    """Source's and destination's; of ICMP its identifier and type. None: it has none."""
    tcp_flags: int
    ifindex: int
    length: int
    """Bytes of the frame without its tunnel's headers."""
    tunnel: int
    """Bytes of these; 0: it was in no tunnel."""
    gso: tuple[int, int] | None
    """Bytes of each segment and their number, of a super-packet."""
    tag: bytes
    """A VLAN tag that the kernel keeps beside the frame; empty: none."""
    data: bytes
    """As much of the packet as was asked for."""

    @classmethod
    def of(cls, record: bytes) -> Event:
        """Of a struct trace_event and the bytes behind it."""
        raw = _STRUCT.from_buffer_copy(record)
        is_ip = raw.ethertype in _IP
        return cls(
            time=raw.time,
            program=Program(raw.program),
            verdict=Verdict(raw.verdict),
            ethertype=raw.ethertype,
            source=_address(raw.source) if is_ip else None,
            destination=_address(raw.destination) if is_ip else None,
            protocol=raw.protocol,
            ports=(raw.source_port, raw.destination_port) if raw.has_ports else None,
            tcp_flags=raw.tcp_flags,
            ifindex=raw.ifindex,
            length=raw.length,
            tunnel=raw.tunnel,
            gso=(raw.gso_size, raw.gso_segments) if raw.gso_size else None,
            tag=_TAG.pack(raw.tag_protocol, raw.tag_control) if raw.tag_protocol else b"",
            data=record[_SIZE : _SIZE + raw.captured],
        )


def document(
    event: Event, real: int, device: Callable[[int], str], names: Mapping[IPAddress, str]
) -> Json:
    """What `--json` prints. `real` is CLOCK_REALTIME less CLOCK_MONOTONIC, ns; `names` of pods."""
    ports = event.ports or (None, None)
    return {
        "time": (event.time + real) / _SECOND,
        "hook": event.program.label,
        "interface": device(event.ifindex),
        "protocol": _protocol(event),
        "source": str(event.source) if event.source else None,
        "source_port": ports[0],
        "source_pod": names.get(event.source) if event.source else None,
        "destination": str(event.destination) if event.destination else None,
        "destination_port": ports[1],
        "destination_pod": names.get(event.destination) if event.destination else None,
        "tcp_flags": _flags(event),
        "bytes": event.length,
        "tunnel": bool(event.tunnel),
        "gso": {"size": event.gso[0], "segments": event.gso[1]} if event.gso else None,
        "verdict": event.verdict.label,
        "reason": event.verdict.meaning,
    }


def line(told: Json) -> str:
    """A document as a line for people."""
    clock = datetime.fromtimestamp(told["time"], tz=timezone.utc).astimezone()
    ends = f"{_end(told, 'source')} > {_end(told, 'destination')}" if told["source"] else ""
    gso = f"gso {told['gso']['segments']}x{told['gso']['size']}" if told["gso"] else ""
    what = [told["protocol"], ends, told["tcp_flags"] or "", f"{told['bytes']} B", gso]
    return (
        f"{clock:%H:%M:%S.%f} {told['hook']:<8} {' '.join(filter(None, what))}"
        f"  {told['verdict']}: {told['reason']}"
    )


def _end(told: Json, which: str) -> str:
    address, port = told[which], told[f"{which}_port"]
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _protocol(event: Event) -> str:
    """Of a packet that is not IP its ethertype."""
    if event.source is None:
        return "arp" if event.ethertype == 0x0806 else f"0x{event.ethertype:04x}"
    return _LABELS.get(event.protocol, str(event.protocol))


def _flags(event: Event) -> str | None:
    if event.source is None or event.protocol != PROTOCOLS["tcp"]:
        return None
    return "".join(flag for bit, flag in enumerate(_FLAGS) if event.tcp_flags >> bit & 1)


def _address(words: Any) -> IPAddress:
    address = IPv6Address(bytes(words))
    return address.ipv4_mapped or address
