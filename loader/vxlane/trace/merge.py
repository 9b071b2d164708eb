# SPDX-License-Identifier: Apache-2.0
"""Two nodes' captures as one file, in order of time by the first node's clock.

The second file's interfaces follow the first one's, and its times are shifted by what `path` finds
of the two clocks. The packets of a pair have its number as a comment of its own, so that Wireshark
can filter by it. Pure: it makes bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vxlane.datapath.abi import Program
from vxlane.trace.path import Key, Offset, key_of, offset_of, trips
from vxlane.trace.pcapng import Block, block, packet_block, section, timestamp
from vxlane.trace.pcapng_reader import Capture, Captured

_MICROSECOND = 1000
_STATISTICS = struct.Struct("=III")


@dataclass(frozen=True, slots=True)
class Merged:
    """Two captures. `head`, `packets` and `tail` are the file, one after the other."""

    a: Capture
    b: Capture
    pairs: frozenset[Key]
    """What both nodes have seen of the same packet."""
    shift: int
    """Ns that B's times lose."""
    clocks: str
    """What is known of the two clocks, in a sentence."""

    def head(self) -> bytes:
        """The start of the file: the section, with `clocks` as its comment, interfaces, names."""
        bodies = [
            block(kind, body)
            for kind in (Block.INTERFACE, Block.NAMES)
            for capture in (self.a, self.b)
            for body in capture.others[kind]
        ]
        return b"".join([section(self.clocks), *bodies])

    def packets(self) -> Iterator[bytes]:
        """Each packet, in order of time. Pairs are numbered from 1 as they begin."""
        numbers: dict[Key, int] = {}
        for time, interfaces, packet in self._sorted():
            comments = [packet.comment]
            if (key := key_of(packet)) and key in self.pairs:
                comments.append(f"pair {numbers.setdefault(key, len(numbers) + 1)}")
            interface = interfaces + packet.program
            yield packet_block(
                interface, time, packet.data, length=packet.length, comments=comments
            )

    def tail(self) -> bytes:
        """The end of the file: what each node lost."""
        return b"".join(
            block(Block.STATISTICS, _moved(body, interfaces, shift))
            for capture, interfaces, shift in self._places()
            for body in capture.others[Block.STATISTICS]
        )

    def _sorted(self) -> list[tuple[int, int, Captured]]:
        """Packets with their times by A's clock and the interfaces before their node's."""
        every = (
            (packet.time - shift, interfaces, packet)
            for capture, interfaces, shift in self._places()
            for packet in capture.packets
        )
        return sorted(every, key=lambda one: one[0])

    def _places(self) -> tuple[tuple[Capture, int, int], ...]:
        """Each capture, with the interfaces before its own and the shift of its times."""
        return (self.a, 0, 0), (self.b, len(Program), self.shift)


def merge(a: Capture, b: Capture) -> Merged:
    """Find the pairs and the offset of the clocks. Without an offset no time is shifted."""
    found = trips(a.packets, b.packets)
    offset = offset_of(found)
    return Merged(
        a=a,
        b=b,
        pairs=frozenset(trip.key for trip in found),
        shift=offset.value if offset else 0,
        clocks=_clocks(a.node or "A", b.node or "B", offset, has_pairs=bool(found)),
    )


def _clocks(a: str, b: str, offset: Offset | None, *, has_pairs: bool) -> str:
    if offset:
        value, error = offset.value / _MICROSECOND, offset.error / _MICROSECOND
        return (
            f"{b}'s clock less {a}'s: {value:.1f} us, give or take {error:.1f};"
            f" times are by {a}'s clock"
        )
    seen = "packets of one direction only were" if has_pairs else "no packet was"
    return f"{seen} seen by both {a} and {b}, so no time is shifted: each is by its node's clock"


def _moved(body: bytes, interfaces: int, shift: int) -> bytes:
    """The body of a statistics block, its interface and its time those of the merged file."""
    interface, high, low = _STATISTICS.unpack_from(body)
    time = (high << 32 | low) - shift
    return struct.pack("=I", interface + interfaces) + timestamp(time) + body[_STATISTICS.size :]
