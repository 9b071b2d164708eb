# SPDX-License-Identifier: Apache-2.0
"""What a flawless packet is, and what a hop makes of it: RFC 791 and 6040, for the oracle.

Knows bytes, nothing of vxlane.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from frames import ACK, CE, ECHO_REPLY, ECHO_REQUEST, ECT0, FIN, ICMP, RST, SYN, TCP, UDP

ETHERTYPE_IPV4 = b"\x08\x00"
Key = tuple[bytes, bytes, int, int, int]


class Packet(NamedTuple):
    """A flawless IPv4 packet: whole, unfragmented, without options, of a protocol we know."""

    source: bytes
    destination: bytes
    protocol: int
    tos: int
    ttl: int
    size: int
    headers: int  # bytes of IP and transport header
    first: int  # source port, or identifier of an echo
    second: int  # destination port, or type of an echo
    flags: int  # of TCP
    sequence: int  # of TCP
    acknowledged: int  # of TCP
    check: bytes  # of TCP or UDP
    content: int  # what NAT leaves alone, and two packets of a flow do not share

    @property
    def key(self) -> Key:
        """The flow as its sender has it."""
        return self.source, self.destination, self.first, self.second, self.protocol


def reverse(key: Key) -> Key:
    """The flow as its other end has it."""
    one, other, first, second, protocol = key
    if protocol == ICMP:
        return other, one, first, ECHO_REPLY if second == ECHO_REQUEST else ECHO_REQUEST, ICMP
    return other, one, second, first, protocol


def read(frame: bytes) -> Packet | None:
    """The packet of an Ethernet frame, if it is flawless and fills the frame."""
    size = len(frame) - 14
    if size < 28 or frame[12:14] != ETHERTYPE_IPV4 or frame[14] != 0x45:
        return None
    words = struct.unpack_from("!10H", frame, 14)
    if words[1] != size or sum(words) % 0xFFFF or words[3] & 0x3FFF:
        return None
    protocol = frame[23]
    flags = sequence = acknowledged = 0
    first, second = struct.unpack_from("!HH", frame, 34)
    if protocol == TCP:
        headers = 20 + (frame[46] >> 4) * 4 if size >= 40 else 0
        if not 40 <= headers <= size:
            return None
        flags = frame[47]
        sequence, acknowledged = struct.unpack_from("!II", frame, 38)
    elif protocol == UDP:
        headers = 28
        # conntrack calls it invalid, and netfilter does not translate it.
        if not 8 <= int.from_bytes(frame[38:40], "big") <= size - 20:
            return None
    elif protocol == ICMP and first in {ECHO_REQUEST << 8, ECHO_REPLY << 8}:
        headers = 28
        first, second = int.from_bytes(frame[38:40], "big"), first >> 8
    else:
        return None
    return Packet(
        frame[26:30],
        frame[30:34],
        protocol,
        frame[15],
        frame[22],
        size,
        headers,
        first,
        second,
        flags,
        sequence,
        acknowledged,
        frame[50:52] if protocol == TCP else frame[40:42],
        sequence if protocol == TCP else content_of_datagram(frame),
    )


def content_of_datagram(frame: bytes) -> int:
    """Length and identification, as they stand on the wire."""
    length, identification = struct.unpack_from("=HH", frame, 16)
    return int(length) << 16 | int(identification)


def is_control(packet: Packet) -> bool:
    """Whether conntrack must see it: it opens or breaks off a connection, or has no ACK."""
    return packet.protocol == TCP and packet.flags & (SYN | RST | ACK) != ACK


def is_fin(packet: Packet) -> bool:
    """Whether it closes a connection."""
    return packet.protocol == TCP and bool(packet.flags & FIN)


def translated(frame: bytes, key: Key) -> bytes:
    """The frame as another flow, named as its sender sees it; hop() sets the header checksum."""
    source, destination, first, second, protocol = key
    made = bytearray(frame)
    place = 34 + (16 if protocol == TCP else 6)
    old = int.from_bytes(frame[place : place + 2], "big")
    made[26:38] = source + destination + struct.pack("!HH", first, second)
    if protocol == TCP or old:
        # RFC 1624: whatever was wrong with it stays wrong.
        grown = sum(struct.unpack("!6H", made[26:38])) - sum(struct.unpack_from("!6H", frame, 26))
        total = ((~old & 0xFFFF) + grown) % 0xFFFF or 0xFFFF
        check = ~total & 0xFFFF
        # To UDP 0 is none.
        made[place : place + 2] = (check or (0 if protocol == TCP else 0xFFFF)).to_bytes(2, "big")
    return bytes(made)


PRIORITIES = (0, 0, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 4)
"""By the four bits of RFC 1349's TOS that the kernel keeps (ip_tos2prio in net/ipv4/route.c)."""


def priority(tos: int) -> int:
    """The skb's priority once it was forwarded."""
    return PRIORITIES[(tos & 0x1E) >> 1]


def hop(frame: bytes, source: bytes, target: bytes, tos: int, hops: int = 1) -> bytes:
    """The frame one hop later, or so many."""
    head = bytearray(frame[14:34])
    head[1], head[8], head[10:12] = tos, head[8] - hops, b"\0\0"
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head[10:12] = (~(total + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return target + source + frame[12:14] + bytes(head) + frame[34:]


def fits(packet: Packet, mtu: int, gso_size: int) -> bool:
    """Whether it goes whole, or in the segments it will be cut into."""
    size = packet.headers + gso_size if gso_size else packet.size
    return size <= mtu


def merged(outer: int, inner: int) -> int | None:
    """TOS after the tunnel by RFC 6040; None: where the kernel does more than merge."""
    out, ecn = outer & 3, inner & 3
    if out in {0, ecn} or (out == ECT0 and ecn):
        return inner
    return inner | CE if out == CE and ecn else None
