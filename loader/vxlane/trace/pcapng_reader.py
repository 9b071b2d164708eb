# SPDX-License-Identifier: Apache-2.0
"""Reads back what `vxlane capture` wrote, and nothing else: see `pcapng`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vxlane.datapath.abi import Program, Verdict
from vxlane.errors import ConfigError
from vxlane.trace.pcapng import SUPER_PACKET

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


def read(path: Path) -> Iterator[Captured]:
    """The packets of a file. ConfigError: it is none that `vxlane capture` ended well."""
    try:
        data = path.read_bytes()
        at = 0
        while at < len(data):
            kind, length = struct.unpack_from("=II", data, at)
            if length < 12:
                raise ValueError
            if kind == 6:
                yield _packet(data[at + 8 : at + length - 4])
            at += length
    except OSError as error:
        raise ConfigError(f"read {path}: {error.strerror}") from None
    except (ValueError, KeyError, struct.error):
        raise ConfigError(f"{path} is not a whole file of 'vxlane capture'") from None


def _packet(body: bytes) -> Captured:
    program, high, low, captured, _ = _FIXED.unpack_from(body)
    end = _FIXED.size + captured
    _, length = struct.unpack_from("=HH", body, end + -captured % 4)
    start = end + -captured % 4 + 4
    comment = body[start : start + length].decode()
    return Captured(
        program=Program(program),
        time=high << 32 | low,
        data=body[_FIXED.size : end],
        verdict=Verdict[comment.partition(":")[0].upper()],
        is_super=SUPER_PACKET in comment,
    )
