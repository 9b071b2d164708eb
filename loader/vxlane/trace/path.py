# SPDX-License-Identifier: Apache-2.0
"""How long packets took from a pod on one node to a pod on another, from both nodes' captures.

A packet is found again by what forwarding leaves alone: its ends, IP identification, length and the
start of its transport header. Super-packets are cut anew on their way and have no pair.

Two clocks differ by some offset. A packet from A to B seems to take its time plus the offset, one
from B to A its time less the offset, and neither takes less than nothing. So the offset is half of
the difference of the two least times, give or take half of their sum. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vxlane.datapath.abi import Program, VerdictKind
from vxlane.trace.pcapng_reader import Captured

Key = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to A's clock to get B's, ns; `error` to either side."""

    value: int
    error: int


@dataclass(frozen=True, slots=True)
class Trip:
    """One packet's times, ns. None: it was not seen at the end of that stretch, or bypassed it."""

    key: Key
    """By which its packets are found in both files."""
    is_forward: bool
    """From A to B."""
    began: int
    """When it left the first program, by the sender's clock."""
    sender: int | None
    """From the pod's veth to the NIC."""
    wire: int
    """From NIC to NIC, by two clocks."""
    receiver: int | None
    """From the NIC to the pod's veth."""
    bypasses: int
    """How many of the two nodes bypassed it."""


def trips(a: Iterable[Captured], b: Iterable[Captured]) -> list[Trip]:
    """The packets that both nodes have seen, in the order in which they were sent."""
    at_a, at_b = _by_key(a), _by_key(b)
    found = [
        trip
        for is_forward, first, second in ((True, at_a, at_b), (False, at_b, at_a))
        for key, sent in first.items()
        if key in second and (trip := _trip(key, sent, second[key], is_forward=is_forward))
    ]
    return sorted(found, key=lambda trip: trip.began)


def offset_of(found: Iterable[Trip]) -> Offset | None:
    """None where packets went one way only: then nothing tells the clocks apart."""
    least: dict[bool, int] = {}
    for trip in found:
        least[trip.is_forward] = min(trip.wire, least.get(trip.is_forward, trip.wire))
    if len(least) < 2:
        return None
    return Offset((least[True] - least[False]) // 2, (least[True] + least[False] + 1) // 2)


def corrected(trip: Trip, offset: Offset) -> int:
    """The time on the wire by one clock, ns, as exact as the offset is."""
    return trip.wire - offset.value if trip.is_forward else trip.wire + offset.value


Seen = dict[Program, Captured]


def _by_key(packets: Iterable[Captured]) -> dict[Key, Seen]:
    """Each packet at its programs; what one program saw twice is left out."""
    found: dict[Key, Seen] = {}
    twice = set()
    for packet in packets:
        key = key_of(packet)
        if key is None:
            continue
        seen = found.setdefault(key, {})
        if packet.program in seen:
            twice.add(key)
        seen[packet.program] = packet
    return {key: seen for key, seen in found.items() if key not in twice}


def key_of(packet: Captured) -> Key | None:
    """Of an IPv4 packet without options that is no super-packet; None of any other."""
    data = packet.data
    if packet.is_super or len(data) < 42 or data[12:15] != b"\x08\x00\x45":
        return None
    # Up to the checksum, which a device may still have to fill in: 16 bytes of TCP, 6 of UDP.
    # ICMP's is never left to a device.
    length = {6: 16, 17: 6, 1: 8}.get(data[23])
    if length is None or len(data) < 34 + length:
        return None
    return data[26:34], data[23:24], data[16:22], data[34 : 34 + length]


def _trip(key: Key, sent: Seen, received: Seen, *, is_forward: bool) -> Trip | None:
    first, arrived = sent.get(Program.FROM_POD), received.get(Program.FROM_NIC)
    if not first or not arrived:
        return None
    left, into = sent.get(Program.TO_NIC), received.get(Program.TO_POD)
    is_bypassed = [each.verdict.kind is VerdictKind.BYPASSED for each in (first, arrived)]
    if not is_bypassed[0] and not left:
        return None
    return Trip(
        key=key,
        is_forward=is_forward,
        began=first.time,
        sender=left.time - first.time if left else None,
        wire=arrived.time - (left or first).time,
        receiver=into.time - arrived.time if into else None,
        bypasses=sum(is_bypassed),
    )


def histogram(values: Iterable[int]) -> list[tuple[int, int]]:
    """Counts by powers of two from the least to the most: (lower bound, count)."""
    counts: dict[int, int] = {}
    for value in values:
        bucket = max(value, 1).bit_length() - 1
        counts[bucket] = counts.get(bucket, 0) + 1
    span = range(min(counts), max(counts) + 1) if counts else range(0)
    return [(1 << bucket, counts.get(bucket, 0)) for bucket in span]
