# SPDX-License-Identifier: Apache-2.0
"""The contents of the maps as frozen dataclasses. Only this module knows their layout in memory.

A record is read from a key and a value (`of`), and written as `key` and `value`. Addresses are
`ipaddress` objects, MACs are lower-case strings with colons, times are ns of CLOCK_MONOTONIC. Pure.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from vxlane.datapath.abi import HEADER, Guard, Way
from vxlane.util.five_tuple import FiveTuple
from vxlane.util.names import mac_octets

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

STRUCTS = HEADER.structs
U32 = ctypes.c_uint32
SHAPES: dict[str, tuple[type[Any], type[Any]]] = {
    "settings": (U32, STRUCTS["settings"]),
    "peers": (STRUCTS["cidr"], STRUCTS["peer"]),
    "vteps": (STRUCTS["address"], U32),
    "pods": (STRUCTS["address"], STRUCTS["pod"]),
    "interfaces": (U32, STRUCTS["address"]),
    "veths": (U32, U32),
    "flows": (STRUCTS["flow_key"], STRUCTS["flow"]),
    "translations": (STRUCTS["flow_key"], STRUCTS["flow_key"]),
    "drafts": (U32, STRUCTS["flow"]),
    "notes": (U32, STRUCTS["note"]),
    "turns": (U32, ctypes.c_uint64),
    "resets": (STRUCTS["flow_key"], STRUCTS["reset"]),
    "counters": (U32, STRUCTS["counter"]),
    "peer_counters": (U32, STRUCTS["peer_counter"]),
    "tracer": (U32, U32),
}
"""Map -> types of its key and value, as bpf/maps.h declares them."""

_MAPPED = bytes(10) + b"\xff\xff"
_LOW, _HIGH = HEADER.enums["side"]["SIDE_LOW"], HEADER.enums["side"]["SIDE_HIGH"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node.

    `ifindex` 0 says that there is no usable way to it now; `mtu` is the largest inner IP packet
    in bytes; `slot` is its index among the peer counters.
    """

    cidr: IPNetwork
    address: IPAddress
    next_hop: IPAddress
    ifindex: int
    mtu: int
    slot: int
    vtep_mac: str
    way: Way = Way.TUNNEL

    @classmethod
    def of(cls, key: Any, value: Any) -> Peer:
        """Of a struct cidr and a struct peer."""
        return cls(
            _cidr(key),
            _address(value.address),
            _address(value.next_hop),
            value.ifindex,
            value.mtu,
            value.slot,
            _mac(value.vtep_mac),
            Way(value.way),
        )

    @property
    def value(self) -> bytes:
        """A struct peer."""
        value = STRUCTS["peer"](
            ifindex=self.ifindex, mtu=self.mtu, slot=self.slot, way=int(self.way)
        )
        _fill(value.address, mapped(self.address))
        _fill(value.next_hop, mapped(self.next_hop))
        _fill(value.vtep_mac, mac_octets(self.vtep_mac))
        return bytes(value)


@dataclass(frozen=True, slots=True)
class Pod:
    """A local endpoint: `ifindex` is its veth's host end, `bridge` the bridge's ifindex.

    `owner` is a number that all interfaces of one container share.
    """

    address: IPAddress
    ifindex: int
    bridge: int
    mtu: int
    mac: str
    gateway_mac: str
    guard: Guard
    owner: int
    gso_size: int = 0
    """The kernel cuts GSO packets of this many bytes or more for the veth; 0: all BIG TCP."""
    gso_segs: int = 0
    """The kernel cuts GSO packets of more segments than this."""
    bridge_netfilter: bool = True
    """Whether what the bridge hands over passes netfilter."""

    @classmethod
    def of(cls, key: Any, value: Any) -> Pod:
        """Of a struct address and a struct pod."""
        return cls(
            _address(key.word),
            value.ifindex,
            value.bridge,
            value.mtu,
            _mac(value.mac),
            _mac(value.gateway_mac),
            Guard(value.guard),
            value.owner,
            value.gso_size,
            value.gso_segs,
            bool(value.bridge_netfilter),
        )

    @property
    def value(self) -> bytes:
        """A struct pod."""
        value = STRUCTS["pod"](
            ifindex=self.ifindex,
            bridge=self.bridge,
            mtu=self.mtu,
            guard=int(self.guard),
            owner=self.owner,
            gso_size=self.gso_size,
            gso_segs=self.gso_segs,
            bridge_netfilter=self.bridge_netfilter,
        )
        _fill(value.mac, mac_octets(self.mac))
        _fill(value.gateway_mac, mac_octets(self.gateway_mac))
        return bytes(value)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent tells the programs; times in ns of CLOCK_MONOTONIC."""

    lease_until: int
    revalidate: int
    revalidate_datagram: int
    address: IPAddress
    epoch: int
    vtep_mac: str
    has_direct: bool = False
    judged: bool = False
    judged_nat: bool = False
    vtep: int = 0
    """Ifindex of the VXLAN device; 0: there is none."""
    heard: bool = False
    """Whether somebody listens to conntrack's changes."""
    may_drop: bool = False
    """Whether a rule may drop packets of established connections."""

    @classmethod
    def of(cls, value: Any) -> Settings:
        """Of a struct settings."""
        return cls(
            value.lease_until,
            value.revalidate,
            value.revalidate_datagram,
            _address(value.address),
            value.epoch,
            _mac(value.vtep_mac),
            bool(value.has_direct),
            bool(value.judged),
            bool(value.judged_nat),
            value.vtep,
            bool(value.heard),
            bool(value.may_drop),
        )

    @property
    def value(self) -> bytes:
        """A struct settings."""
        value = STRUCTS["settings"](
            lease_until=self.lease_until,
            revalidate=self.revalidate,
            revalidate_datagram=self.revalidate_datagram,
            epoch=self.epoch,
            has_direct=self.has_direct,
            judged=self.judged,
            judged_nat=self.judged_nat,
            vtep=self.vtep,
            heard=self.heard,
            may_drop=self.may_drop,
        )
        _fill(value.address, mapped(self.address))
        _fill(value.vtep_mac, mac_octets(self.vtep_mac))
        return bytes(value)


@dataclass(frozen=True, slots=True)
class Tuple(FiveTuple):
    """A 5-tuple as one of its ends has it. The maps have the same key for both."""

    @classmethod
    def of(cls, key: Any, side: int) -> Tuple:
        """Of a struct flow_key, as the end on that side (enum side) has it."""
        low, high = _address(key.low), _address(key.high)
        found = cls(low, high, key.low_port, key.high_port, key.protocol)
        return found.reversed if side else found

    @property
    def side(self) -> int:
        """Which end of the key `local` is: side_of() in bpf/flow_key.h."""
        return _HIGH if _rank(self.local) > _rank(self.remote) else _LOW

    @property
    def key(self) -> bytes:
        """A struct flow_key."""
        low = self.reversed if self.side else self
        key = STRUCTS["flow_key"](
            low_port=low.local_port, high_port=low.remote_port, protocol=self.protocol
        )
        _fill(key.low, mapped(low.local))
        _fill(key.high, mapped(low.remote))
        return bytes(key)


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow of a local pod, and what the kernel path was seen to do with it.

    `seen_out` and `seen_in` are when packets of each direction last came out of the kernel path.
    `used` is when the flow was last bypassed, within a second. All three are in ns; 0: never.
    `ifindex` is the veth of the pod that it was approved for. `nic` is the device by which it
    leaves (0: none, or not seen yet), which is the other pod's veth between two pods of this node.
    `behind` is the flow's 5-tuple behind netfilter, which differs if it is translated.
    """

    tuple: Tuple
    seen_out: int
    seen_in: int
    used: int
    epoch: int
    ifindex: int
    nic: int
    next_hop: IPAddress
    source_port: int
    mtu: int
    way: Way
    is_open: bool
    """For TCP: the ACK of the handshake has been seen, by either path."""
    behind: Tuple
    is_confirmed: bool
    """More than one packet has taken this way."""
    is_closing: bool = False
    """For TCP: a FIN has passed."""

    @classmethod
    def of(cls, key: Any, value: Any) -> Flow:
        """Of a struct flow_key and a struct flow."""
        flow = Tuple.of(key, value.side)
        return cls(
            flow,
            value.seen_out,
            value.seen_in,
            value.used,
            value.epoch,
            value.ifindex,
            value.nic,
            _address(value.next_hop),
            value.source_port,
            value.mtu,
            Way(value.way),
            bool(value.open),
            _behind(flow, value),
            bool(value.confirmed),
            value.closing != 0,
        )

    @property
    def views(self) -> Sequence[Flow]:
        """The record as each of its pods on this node has it, first the one of the key."""
        return (self, self.of_neighbour) if self.way == Way.LOCAL else (self,)

    @property
    def of_neighbour(self) -> Flow:
        """Between two pods of this node: the same record as the other pod has it."""
        return replace(
            self,
            tuple=self.behind.reversed,
            behind=self.tuple.reversed,
            seen_out=self.seen_in,
            seen_in=self.seen_out,
            ifindex=self.nic,
            nic=self.ifindex,
        )


@dataclass(frozen=True, slots=True)
class Count:
    """Packets as skbs: a GSO super-packet is one; bytes with the Ethernet header."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PeerCount:
    """What the bypass carried for one peer."""

    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int


def cidr_key(cidr: IPNetwork) -> bytes:
    """A struct cidr."""
    key = STRUCTS["cidr"](prefix_len=cidr.prefixlen + (96 if cidr.version == 4 else 0))
    _fill(key.address, mapped(cidr.network_address))
    return bytes(key)


def mapped(address: IPAddress) -> bytes:
    """A struct address: 16 bytes, IPv4 mapped into IPv6."""
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def _behind(flow: Tuple, value: Any) -> Tuple:
    """The flow behind netfilter, by a struct flow."""
    if not value.translated:
        return flow
    ends = _address(value.nat_local), _address(value.nat_remote)
    return Tuple(*ends, value.nat_local_port, value.nat_remote_port, flow.protocol)


def _rank(address: IPAddress) -> tuple[int, ...]:
    """The words of a struct address, in the order in which they are compared."""
    return struct.unpack("=4I", mapped(address))[::-1]


def _address(words: Any) -> IPAddress:
    raw = bytes(words)
    return IPv4Address(raw[12:]) if raw.startswith(_MAPPED) else IPv6Address(raw)


def _cidr(key: Any) -> IPNetwork:
    address = _address(key.address)
    if isinstance(address, IPv4Address):
        return IPv4Network((address, key.prefix_len - 96))
    return IPv6Network((address, key.prefix_len))


def _fill(array: ctypes.Array[ctypes.c_uint8], data: bytes) -> None:
    ctypes.memmove(array, data, ctypes.sizeof(array))


def _mac(raw: ctypes.Array[ctypes.c_uint8]) -> str:
    return bytes(raw).hex(":")
