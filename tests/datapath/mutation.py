# SPDX-License-Identifier: Apache-2.0
"""Mutation: frames that are almost valid, by a seeded generator.

Most mutants get right lengths and checksums again, or nothing but those two checks would ever be
tried.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from frames import ACK, ENCAPSULATION, ETHERNET, FIN, IP, PSH, RST, SYN, UDP, checksum
from world import PORT

HEADERS = 110  # bytes in which flips go: outer Ethernet to inner TCP
EDGES = (0, 1, 4, 5, 6, 8, 0x0F, 0x10, 0x40, 0x45, 0x46, 0x7F, 0x80, 0xFF)
UDP_LENGTH = ETHERNET + IP + 4
SHORTEST, LONGEST = 34, 3600  # what the kernel takes for a test run
# Places at which fields of the same kind stand: (offsets, length).
ALIKE = (
    ((0, 6, 50, 56), 6),  # MACs
    ((26, 30, 76, 80), 4),  # addresses
    ((34, 36, 84, 86), 2),  # ports
    ((16, 38, 66), 2),  # lengths
    ((22, 72), 1),  # TTL
    ((15, 65), 1),  # TOS
    ((23, 73), 1),  # protocol
)


class Mutator:
    """Makes mutants of `bases`."""

    def __init__(self, random: Random, bases: list[bytes]) -> None:
        self._random, self._bases = random, bases
        self._mutations: list[Callable[[bytearray], None]] = [
            self._flip,
            self._flip,
            self._flip,
            self._set_byte,
            self._cut,
            self._extend,
            self._lie,
            self._swap,
            self._splice,
            self._control,
        ]

    def mutant(self, base: bytes) -> bytes:
        """A frame some steps away from `base`, of a length that can be run."""
        random = self._random
        frame = bytearray(base)
        for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
            random.choice(self._mutations)(frame)
        if random.random() < 0.7:
            mend(frame)
        elif random.random() < 0.5:
            mend_checksums(frame)
        frame += bytes(max(0, SHORTEST - len(frame)))
        # The kernel refuses a frame that is shorter than its own IPv6 header.
        if frame[12:14] == b"\x86\xdd" and len(frame) < 54:
            frame += bytes(54 - len(frame))
        return bytes(frame[:LONGEST])

    def _flip(self, frame: bytearray) -> None:
        place = self._random.randrange(min(len(frame), HEADERS))
        frame[place] ^= 1 << self._random.randrange(8)

    def _set_byte(self, frame: bytearray) -> None:
        frame[self._random.randrange(min(len(frame), HEADERS))] = self._random.choice(EDGES)

    def _cut(self, frame: bytearray) -> None:
        del frame[self._random.randrange(SHORTEST, len(frame) + 1) :]

    def _extend(self, frame: bytearray) -> None:
        frame += self._random.randbytes(self._random.randrange(1, 64))

    def _lie(self, frame: bytearray) -> None:
        place = self._random.choice((16, 38, 66, 88))
        if place + 2 <= len(frame):
            value = int.from_bytes(frame[place : place + 2], "big")
            value += self._random.choice((-20, -8, -2, -1, 1, 2, 8, 14, 20, 50))
            frame[place : place + 2] = (value & 0xFFFF).to_bytes(2, "big")

    def _swap(self, frame: bytearray) -> None:
        places, length = self._random.choice(ALIKE)
        one, other = self._random.choice(places), self._random.choice(places)
        if max(one, other) + length <= len(frame):
            kept = frame[one : one + length]
            frame[one : one + length] = frame[other : other + length]
            frame[other : other + length] = kept

    def _control(self, frame: bytearray) -> None:
        """TCP flags, of what the frame holds or of what its tunnel does."""
        flags = packets(frame)[-1] + IP + 13
        if len(frame) > flags:
            frame[flags] = self._random.choice((0, FIN | ACK, SYN, SYN | ACK, RST, PSH | ACK))

    def _splice(self, frame: bytearray) -> None:
        other = self._random.choice(self._bases)
        places, length = self._random.choice(ALIKE)
        place = self._random.choice(places)
        if place + length <= min(len(frame), len(other)):
            frame[place : place + length] = other[place : place + length]


def packets(frame: bytearray) -> list[int]:
    """Where IP packets begin: behind the Ethernet header, and inside a tunnel."""
    tunnel = frame[23] == UDP and frame[36:38] == PORT.to_bytes(2, "big")
    starts = (ETHERNET, ETHERNET + ENCAPSULATION) if tunnel else (ETHERNET,)
    return [start for start in starts if len(frame) >= start + IP]


def mend(frame: bytearray) -> None:
    """Make all lengths and header checksums right."""
    starts = packets(frame)
    for start in starts:
        struct.pack_into("!H", frame, start + 2, len(frame) - start)
    if len(starts) == 2:
        struct.pack_into("!H", frame, UDP_LENGTH, len(frame) - ETHERNET - IP)
    mend_checksums(frame)


def mend_checksums(frame: bytearray) -> None:
    """Make header checksums right."""
    for start in packets(frame):
        struct.pack_into("!H", frame, start + 10, 0)
        made = checksum(bytes(frame[start : start + IP]))
        struct.pack_into("!H", frame, start + 10, made)
