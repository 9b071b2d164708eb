# SPDX-License-Identifier: Apache-2.0
"""Packets as pcapng (draft-ietf-opsawg-pcapng), which Wireshark, tshark and tcpdump read.

Each program is an interface of the file, in the order of `Program`. Each packet's comment is its
verdict, pods and nodes have their names in a name resolution block. Pure: it makes bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from ipaddress import IPv4Address

from vxlane.datapath.abi import Program
from vxlane.datapath.records import IPAddress
from vxlane.trace.event import Event


class Block(IntEnum):
    """What a block holds."""

    SECTION = 0x0A0D0D0A
    INTERFACE = 1
    NAMES = 4
    STATISTICS = 5
    PACKET = 6


_BYTE_ORDER = 0x1A2B3C4D
COMMENT, IF_DESCRIPTION = 1, 3
_APPLICATION, _IF_NAME, _RESOLUTION, _DROPPED = 4, 2, 9, 5
_ETHERNET = 1
_NAME_IPV4 = 1
_TAG_AT = 12
"""Behind the two MACs."""
_NANOSECONDS = b"\x09"
SUPER_PACKET = "super-packet"
"""In the comment of each."""

_WHERE = {
    Program.FROM_POD: "what pods send",
    Program.TO_POD: "what the kernel path puts into pods",
    Program.FROM_NIC: "what the NIC receives",
    Program.TO_NIC: "what the kernel path sends for pods",
}


def head(node: str, names: Mapping[IPAddress, str], snaplen: int) -> bytes:
    """The begin of a file: the section, the interfaces, the names.

    The node's name is in each interface's description: mergecap takes interfaces that are alike for
    one.
    """
    blocks = [section()]
    for program in Program:
        options = [
            (_IF_NAME, program.label.encode()),
            (IF_DESCRIPTION, f"{node}: {_WHERE[program]}".encode()),
            (_RESOLUTION, _NANOSECONDS),
        ]
        blocks.append(block(Block.INTERFACE, struct.pack("=HHI", _ETHERNET, 0, snaplen), options))
    records = b"".join(
        _record(_NAME_IPV4, address.packed + name.encode() + b"\0")
        for address, name in names.items()
        if isinstance(address, IPv4Address)
    )
    blocks.append(block(Block.NAMES, records + _record(0, b"")))
    return b"".join(blocks)


def section(comment: str = "") -> bytes:
    """The first block of a file."""
    options = [(COMMENT, comment.encode())] if comment else []
    body = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1)
    return block(Block.SECTION, body, [*options, (_APPLICATION, b"vxlane")])


def packet(event: Event, real: int, *, outer: bool) -> bytes:
    """A packet. `real` is CLOCK_REALTIME less CLOCK_MONOTONIC, ns; `outer`: its bytes begin with
    its tunnel's headers.
    """
    length = event.length + (event.tunnel if outer else 0)
    data = event.data
    # The tag is the outermost frame's.
    if event.tag and (outer or not event.tunnel):
        is_whole = len(data) == length
        data = data[:_TAG_AT] + event.tag + data[_TAG_AT:]
        length += len(event.tag)
        data = data if is_whole else data[: len(event.data)]
    comment = f"{event.verdict.label}: {event.verdict.meaning}"
    if event.gso:
        comment += f" ({SUPER_PACKET}: {event.gso[1]} segments of {event.gso[0]} bytes)"
    time = event.time + real
    return packet_block(event.program, time, data, length=length, comments=[comment])


def packet_block(
    interface: int, time: int, data: bytes, *, length: int, comments: Iterable[str]
) -> bytes:
    """A packet that had `length` bytes, at `time` (ns since 1970)."""
    fixed = struct.pack("=I", interface) + timestamp(time) + struct.pack("=II", len(data), length)
    options = [(COMMENT, comment.encode()) for comment in comments]
    return block(Block.PACKET, fixed + _padded(data), options)


def tail(lost: int, now: int) -> bytes:
    """The end of a file: how many packets were lost. `now`: ns of CLOCK_REALTIME."""
    fixed = struct.pack("=I", 0) + timestamp(now)
    options = [(COMMENT, b"of all interfaces"), (_DROPPED, struct.pack("=Q", lost))]
    return block(Block.STATISTICS, fixed, options)


def timestamp(nanoseconds: int) -> bytes:
    """A time, ns since 1970: its upper half comes first on every machine."""
    return struct.pack("=II", nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)


def block(kind: Block, body: bytes, options: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A block: `body` as it is, and behind it the options, each a code and a value."""
    listed = b"".join(_record(code, value) for code, value in options)
    content = body + (listed + _record(0, b"") if listed else b"")
    length = struct.pack("=I", len(content) + 12)
    return struct.pack("=I", kind) + length + content + length


def _record(kind: int, value: bytes) -> bytes:
    """An option, or a record of names: both have this form."""
    return struct.pack("=HH", kind, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
