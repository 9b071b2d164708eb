# SPDX-License-Identifier: Apache-2.0
"""Packets as pcapng (draft-ietf-opsawg-pcapng), which Wireshark, tshark and tcpdump read.

Each program is an interface of the file, in the order of `Program`. Each packet's comment is its
verdict, pods and nodes have their names in a name resolution block. Pure: it makes bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from vxlane.datapath.abi import Program
from vxlane.trace.event import Event

_SECTION, _INTERFACE, _NAMES, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 4, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_ETHERNET = 1
_NAME_IPV4 = 1
_COMMENT, _APPLICATION, _IF_NAME, _IF_DESCRIPTION, _RESOLUTION, _DROPPED = 1, 4, 2, 3, 9, 5
_NANOSECONDS = b"\x09"
SUPER_PACKET = "super-packet"
"""In the comment of each."""

_WHERE = {
    Program.FROM_POD: "what pods send",
    Program.TO_POD: "what the kernel path puts into pods",
    Program.FROM_NIC: "what the NIC receives",
    Program.TO_NIC: "what the kernel path sends for pods",
}


def head(node: str, names: Mapping[IPv4Address, str], snaplen: int) -> bytes:
    """The begin of a file: the section, the interfaces, the names.

    The node's name is in each interface's description: mergecap takes interfaces that are alike for
    one.
    """
    section = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1)
    blocks = [_block(_SECTION, section, [(_APPLICATION, b"vxlane")])]
    for program in Program:
        options = [
            (_IF_NAME, program.label.encode()),
            (_IF_DESCRIPTION, f"{node}: {_WHERE[program]}".encode()),
            (_RESOLUTION, _NANOSECONDS),
        ]
        blocks.append(_block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, snaplen), options))
    records = b"".join(
        _record(_NAME_IPV4, address.packed + name.encode() + b"\0")
        for address, name in names.items()
    )
    blocks.append(_block(_NAMES, records + _record(0, b""), []))
    return b"".join(blocks)


def packet(event: Event, real: int, *, outer: bool) -> bytes:
    """A packet. `real` is CLOCK_REALTIME less CLOCK_MONOTONIC, ns; `outer`: its bytes begin with
    its tunnel's headers.
    """
    length = event.length + (event.tunnel if outer else 0)
    fixed = struct.pack("=IIIII", event.program, *_time(event.time + real), len(event.data), length)
    comment = f"{event.verdict.label}: {event.verdict.meaning}"
    if event.gso:
        comment += f" ({SUPER_PACKET}: {event.gso[1]} segments of {event.gso[0]} bytes)"
    return _block(_PACKET, fixed + _padded(event.data), [(_COMMENT, comment.encode())])


def tail(lost: int, now: int) -> bytes:
    """The end of a file: how many packets were lost. `now`: ns of CLOCK_REALTIME."""
    fixed = struct.pack("=III", 0, *_time(now))
    options = [(_COMMENT, b"of all interfaces"), (_DROPPED, struct.pack("=Q", lost))]
    return _block(_STATISTICS, fixed, options)


def _time(nanoseconds: int) -> tuple[int, int]:
    return nanoseconds >> 32, nanoseconds & 0xFFFFFFFF


def _block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    listed = b"".join(_record(code, value) for code, value in options)
    content = body + (listed + _record(0, b"") if listed else b"")
    length = struct.pack("=I", len(content) + 12)
    return struct.pack("=I", kind) + length + content + length


def _record(kind: int, value: bytes) -> bytes:
    """An option, or a record of names: both have this form."""
    return struct.pack("=HH", kind, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
