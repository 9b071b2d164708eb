# SPDX-License-Identifier: Apache-2.0
"""Frames out of the ordinary, made after a plain one: from the same sender."""

import struct
from dataclasses import replace
from ipaddress import IPv4Address

from frames import ARP, ETHERNET, IP, IPV6, MF, VLAN, Raw, mac

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "02:00:00:00:00:99"
LOCAL_EXPERIMENTAL, LLDP = 0x88B5, 0x88CC


def ethernet(plain, ethertype, payload, *, dest_mac=None):
    """A frame of another ethertype."""
    addresses = mac(dest_mac or plain.dest_mac) + mac(plain.source_mac)
    return addresses + struct.pack("!H", ethertype) + payload


def arp(plain, wanted):
    """A question to all: who has the IPv4 address `wanted`."""
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac(plain.source_mac)
    request += plain.source.packed + bytes(6) + IPv4Address(wanted).packed
    return ethernet(plain, ARP, request, dest_mac=BROADCAST)


def ipv6(plain, dest_mac):
    """A datagram to ff02::fb, port 5353, with no data."""
    header = struct.pack("!IHBB", 6 << 28, 8, 17, 255) + bytes(15) + b"\x01"
    group = bytes.fromhex("ff02") + bytes(13) + b"\xfb"
    datagram = struct.pack("!HHHH", 5353, 5353, 8, 0)
    return ethernet(plain, IPV6, header + group + datagram, dest_mac=dest_mac)


def vlan(frame, identifier):
    """The frame with a VLAN tag; identifier 0 is a priority and no VLAN."""
    raw = bytes(frame)
    return raw[:12] + struct.pack("!HH", VLAN, identifier) + raw[12:]


def to(plain, address, dest_mac=None, **changes):
    """The packet to another address, and by another MAC."""
    dest_mac = dest_mac or plain.dest_mac
    return replace(plain, destination=IPv4Address(address), dest_mac=dest_mac, **changes)


def udp(frame, **changes):
    """The frame with changes in its UDP header or payload."""
    return replace(frame, transport=replace(frame.transport, **changes))


def cut(frame, size):
    """The first `size` bytes behind the Ethernet header."""
    return bytes(frame)[: ETHERNET + size]


def fragments(frame, size):
    """The frame's packet in fragments that carry `size` bytes each, a multiple of 8."""
    data = bytes(frame)[ETHERNET + IP :]
    return [
        replace(
            frame,
            transport=Raw(frame.transport.protocol, data[at : at + size]),
            fragment=at // 8 | (MF if at + size < len(data) else 0),
        )
        for at in range(0, len(data), size)
    ]
