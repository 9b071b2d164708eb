# SPDX-License-Identifier: Apache-2.0
"""Frames as a test writes them: dataclasses that become bytes.

A field left None is computed (lengths, checksums); a field given is written as it is, right or
wrong. `dataclasses.replace(frame, ttl=1)` is the frame but for one thing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST = 0, 3, 8
ICMP, TCP, UDP, SCTP = 1, 6, 17, 132
IPV4, ARP, VLAN, VLAN_S, IPV6 = 0x0800, 0x0806, 0x8100, 0x88A8, 0x86DD
DF, MF = 0x4000, 0x2000
NOT_ECT, ECT1, ECT0, CE = range(4)

ETHERNET, IP, VXLAN = 14, 20, 8
# Bytes that an encapsulation puts before the inner IP packet.
ENCAPSULATION = IP + 8 + VXLAN + ETHERNET


def checksum(data: bytes) -> int:
    """Checksum of RFC 1071, 0 over data that holds its own right one."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Udp:
    """A UDP datagram; checksum 0 is none."""

    source: int
    dest: int
    payload: bytes = b""
    length: int | None = None
    checksum: int | None = None

    protocol = UDP

    def encode(self, addresses: bytes) -> bytes:
        """To bytes; `addresses` of the IP header go into the checksum."""
        length = 8 + len(self.payload) if self.length is None else self.length
        ports = struct.pack("!HHH", self.source, self.dest, length)
        pseudo = addresses + struct.pack("!HH", UDP, length)
        made = checksum(pseudo + ports + bytes(2) + self.payload) or 0xFFFF
        made = made if self.checksum is None else self.checksum
        return ports + struct.pack("!H", made) + self.payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    """A TCP segment; `offset` counts words of header and may lie."""

    source: int
    dest: int
    flags: int = ACK
    sequence: int = 1000
    acknowledged: int = 2000
    options: bytes = b""
    payload: bytes = b""
    offset: int | None = None

    protocol = TCP

    def encode(self, addresses: bytes) -> bytes:
        """To bytes; `addresses` of the IP header go into the checksum."""
        offset = 5 + len(self.options) // 4 if self.offset is None else self.offset
        head = struct.pack("!HHII", self.source, self.dest, self.sequence, self.acknowledged)
        head += struct.pack("!BBH", offset << 4, self.flags, 500)
        tail = bytes(2) + self.options + self.payload
        pseudo = addresses + struct.pack("!HH", TCP, len(head) + 2 + len(tail))
        return head + struct.pack("!H", checksum(pseudo + head + bytes(2) + tail)) + tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Icmp:
    """An ICMP message, by default an echo request."""

    kind: int = ECHO_REQUEST
    code: int = 0
    identifier: int = 0
    sequence: int = 1
    payload: bytes = b""

    protocol = ICMP

    def encode(self, _addresses: bytes) -> bytes:
        """To bytes."""
        rest = struct.pack("!HH", self.identifier, self.sequence) + self.payload
        kind = struct.pack("!BB", self.kind, self.code)
        return kind + struct.pack("!H", checksum(kind + bytes(2) + rest)) + rest


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes of any IP protocol."""

    protocol: int
    payload: bytes = b""

    def encode(self, _addresses: bytes) -> bytes:
        """To bytes."""
        return self.payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An Ethernet frame with an IPv4 packet in it; `padding` follows the packet."""

    source_mac: str
    dest_mac: str
    source: IPv4Address
    destination: IPv4Address
    transport: Udp | Tcp | Icmp | Raw
    ethertype: int = IPV4
    version: int = 4
    ihl: int | None = None
    tos: int = 0
    total_length: int | None = None
    identification: int = 0x1234
    fragment: int = DF
    ttl: int = 64
    checksum: int | None = None
    options: bytes = b""
    padding: bytes = b""

    def __bytes__(self) -> bytes:
        addresses = self.source.packed + self.destination.packed
        data = self.transport.encode(addresses)
        ihl = 5 + len(self.options) // 4 if self.ihl is None else self.ihl
        length = IP + len(self.options) + len(data)
        length = length if self.total_length is None else self.total_length
        head = struct.pack("!BBH", self.version << 4 | ihl, self.tos, length)
        head += struct.pack("!HH", self.identification, self.fragment)
        head += struct.pack("!BB", self.ttl, self.transport.protocol)
        tail = addresses + self.options
        made = checksum(head + bytes(2) + tail) if self.checksum is None else self.checksum
        packet = head + struct.pack("!H", made) + tail + data
        ethernet = mac(self.dest_mac) + mac(self.source_mac) + struct.pack("!H", self.ethertype)
        return ethernet + packet + self.padding


def tagged(frame: Frame, *vlans: int) -> bytes:
    """A frame with VLAN tags, the outermost first; VLAN 0 is a mere priority."""
    made = bytes(frame)
    kinds = [VLAN_S, *[VLAN] * len(vlans)] if len(vlans) > 1 else [VLAN]
    tags = b"".join(
        struct.pack("!HH", kind, vlan) for kind, vlan in zip(kinds, vlans, strict=False)
    )
    return made[:12] + tags + made[12:]


def super_packet(frame: Frame, segment: int) -> bytes:
    """A frame to be cut into segments of that payload, behind its struct virtio_net_hdr.

    The transport checksum is left to whoever cuts: the field holds the sum over the addresses.
    """
    tcp = frame.transport.protocol == TCP
    kind, field = (1, 16) if tcp else (5, 6)  # VIRTIO_NET_HDR_GSO_TCPV4, _UDP_L4
    start = ETHERNET + IP
    made = bytearray(bytes(frame))
    headers = start + (made[start + 12] >> 4) * 4 if tcp else start + 8
    pseudo = made[26:34] + struct.pack("!HH", frame.transport.protocol, len(made) - start)
    struct.pack_into("!H", made, start + field, ~checksum(bytes(pseudo)) & 0xFFFF)
    return struct.pack("=BBHHHH", 1, kind, headers, segment, start, field) + bytes(made)


def unfinished(frame: bytes) -> bytes:
    """A frame whose transport checksum is left to the device, behind its struct virtio_net_hdr.

    In a tunnel it is the inner packet's.
    """
    is_tunnel = frame[23] == UDP and frame[36:38] == (8472).to_bytes(2, "big")
    ip = ETHERNET + (ENCAPSULATION if is_tunnel else 0)
    start, field = ip + IP, 16 if frame[ip + 9] == TCP else 6
    made = bytearray(frame)
    pseudo = made[ip + 12 : ip + 20] + struct.pack("!HH", frame[ip + 9], len(made) - start)
    struct.pack_into("!H", made, start + field, ~checksum(bytes(pseudo)) & 0xFFFF)
    return struct.pack("=BBHHHH", 1, 0, 0, 0, start, field) + bytes(made)


def without_chance(frame: bytes) -> bytes:
    """A VXLAN frame without outer IP identification, and so header checksum, and UDP checksum.

    The identification is random by both ways. flannel.1 sends a UDP checksum (udpcsum); the bypass
    sends none, which RFC 7348 allows and every receiver must take.
    """
    assert checksum(frame[ETHERNET : ETHERNET + 20]) == 0
    return frame[:18] + b"??" + frame[20:24] + b"??" + frame[26:40] + b"??" + frame[42:]


def vxlan(inner: bytes, *, vni: int = 1, flags: int = 0x08000000, reserved: int = 0) -> bytes:
    """VXLAN header and frame; `flags` is the header's first word, `reserved` its last byte."""
    return struct.pack("!II", flags, vni << 8 | reserved) + inner


def mac(text: str) -> bytes:
    """02:00:00:00:00:01 -> 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))
