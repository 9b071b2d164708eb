# SPDX-License-Identifier: Apache-2.0
"""Which source port this kernel's VXLAN gives a packet, by the packet's hash.

udp_flow_src_port() in include/net/udp.h spreads hashes over the range `[low, high]`: over
`high - low` ports up to Linux 6.18, over all of them from 7.0 on. So half of all flows have another
port on the one than on the other.
"""

from __future__ import annotations

import socket
import struct

from vxlane.datapath.attach import ETH_P_ALL
from vxlane.probes import instructions as bpf
from vxlane.probes.place import MARKER, Place, arrived
from vxlane.probes.unclear import Unclear

RANGE = 32768, 60999
"""As of a device with no range of its own (net.ipv4.ip_local_port_range)."""
HASHES = 256
_SPREAD = 0x9E3779B1
"""Its multiples are spread evenly over 32 bits."""
_ETHERNET = bytes.fromhex("02766c616e01 02766c616e65 88b5")
"""Of an ethertype for experiments, so that nothing else gives the packet a hash."""
_OUTER_SOURCE = slice(34, 36)


def port_of(hash_: int, low: int, high: int, *, is_last_used: bool) -> int:
    """The port that udp_flow_src_port() makes of a hash, in either form."""
    mixed = (hash_ ^ hash_ << 16) & 0xFFFFFFFF
    return (mixed * (high - low + is_last_used) >> 32) + low


def uses_last_port(place: Place) -> bool:
    """The last port of a VXLAN device's range is used too, tried with hundreds of hashes.

    Unclear: the ports that were seen are of neither form.
    """
    # The hash that gives the greatest port of all is among them.
    hashes = [0x0000FFFF, *(number * _SPREAD & 0xFFFFFFFF for number in range(1, HASHES))]
    seen = ports(place, hashes)
    for is_last_used in (False, True):
        if seen == [port_of(each, *RANGE, is_last_used=is_last_used) for each in hashes]:
            return is_last_used
    raise Unclear("VXLAN's source ports are neither of the two known functions of the hash")


def ports(place: Place, hashes: list[int]) -> list[int]:
    """The source ports that a VXLAN device gives to packets of these hashes."""
    with (
        place.overlay(RANGE) as overlay,
        place.tap("pod") as tap,
        place.attached(*_hashing(), device=overlay),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sender,
    ):
        sender.bind((overlay, 0))
        return [_port(sender, tap, each) for each in hashes]


def _port(sender: socket.socket, tap: socket.socket, hash_: int) -> int:
    sender.send(_ETHERNET + struct.pack("=I", hash_) + bytes(46) + MARKER)
    frame = arrived(tap)
    if frame is None:
        raise Unclear("nothing has left by a VXLAN device")
    return int.from_bytes(frame[_OUTER_SOURCE], "big")


def _hashing() -> tuple[bytes, ...]:
    """A program that gives a packet the hash that stands behind its Ethernet header."""
    return (
        *(bpf.copy(bpf.CONTEXT, bpf.R1), *bpf.fill_stack((0,)), bpf.number(bpf.R2, len(_ETHERNET))),
        *(bpf.copy(bpf.R3, bpf.STACK), bpf.add(bpf.R3, -4), bpf.number(bpf.R4, 4)),
        *(bpf.call(bpf.LOAD_BYTES), bpf.copy(bpf.R1, bpf.CONTEXT)),
        *(bpf.load(bpf.R2, bpf.STACK, -4), bpf.call(bpf.SET_HASH), *bpf.answer(bpf.PASS)),
    )
