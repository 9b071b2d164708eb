# SPDX-License-Identifier: Apache-2.0
"""Reads back what `vxlane capture` wrote, and nothing else: see `pcapng`."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vxlane.datapath.abi import Program, Verdict
from vxlane.errors import ConfigError
from vxlane.trace.pcapng import COMMENT, IF_DESCRIPTION, SUPER_PACKET, Block

_FIXED = struct.Struct("=IIIII")


@dataclass(frozen=True, slots=True)
class Captured:
    """A packet of a file."""

    program: Program
    time: int
    """Ns of its node's CLOCK_REALTIME."""
    data: bytes
    verdict: Verdict
    is_super: bool
    """Whether it is a super-packet."""
    length: int
    """Bytes that it had; `data` may be fewer."""
    comment: str


@dataclass(frozen=True, slots=True)
class Capture:
    """What a file holds."""

    node: str
    """Empty: the node had no name."""
    others: dict[Block, list[bytes]]
    """The bodies of all blocks but those of packets."""
    packets: list[Captured]


def read(path: Path) -> Capture:
    """A whole file. ConfigError: it is none that `vxlane capture` ended well on one node."""
    try:
        return _capture(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"read {path}: {error.strerror}") from None
    except (ValueError, KeyError, struct.error):
        raise ConfigError(
            f"{path} is not a whole file of 'vxlane capture' on one node; end a capture with"
            " Ctrl-C, and give its file as it is"
        ) from None


def _capture(data: bytes) -> Capture:
    bodies: dict[Block, list[bytes]] = defaultdict(list)
    packets = []
    for kind, body in _blocks(data):
        if kind is Block.PACKET:
            packets.append(_packet(body))
        else:
            bodies[kind].append(body)
    sections, interfaces = bodies[Block.SECTION], bodies[Block.INTERFACE]
    if len(sections) != 1 or len(interfaces) != len(Program):
        raise ValueError
    described = _options(interfaces[0][8:])[IF_DESCRIPTION].decode()
    return Capture(described.partition(": ")[0], bodies, packets)


def _blocks(data: bytes) -> Iterator[tuple[Block, bytes]]:
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("=II", data, at)
        if length < 12 or at + length > len(data):
            raise ValueError
        yield Block(kind), data[at + 8 : at + length - 4]
        at += length


def _packet(body: bytes) -> Captured:
    program, high, low, captured, length = _FIXED.unpack_from(body)
    end = _FIXED.size + captured
    comment = _options(body[end + -captured % 4 :])[COMMENT].decode()
    return Captured(
        program=Program(program),
        time=high << 32 | low,
        data=body[_FIXED.size : end],
        verdict=Verdict[comment.partition(":")[0].upper()],
        is_super=SUPER_PACKET in comment,
        length=length,
        comment=comment,
    )


def _options(data: bytes) -> dict[int, bytes]:
    """By their codes."""
    found = {}
    at = 0
    while at < len(data):
        code, length = struct.unpack_from("=HH", data, at)
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return found
