# SPDX-License-Identifier: Apache-2.0
"""What bypassed packets look like to a rule, and whether a test fits them.

A `Packet` here is a set of packets: for each field it has the values that some of them have. A test
fits none, some or all of them. A test that is not understood fits some. Pure.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from vxlane.mechanisms.kinds import Ranges

_MOST_VALUES = 1024
"""Values of a field that are tried one by one against a mask. With more of them the test fits
some, as far as we know."""
_IPV4, _ETH_IPV4 = 2, 0x0800  # NFPROTO_IPV4, ETH_P_IP
_TCP, _UDP, _ICMP = 6, 17, 1
_ACK, _SYN_RST = 0x10, 0x06
_DONT_FRAGMENT = 0x4000
_UNSPECIFIED, _UNICAST, _LOCAL = 0, 1, 2  # RTN_*
_HOST, _MULTICAST = 0, 2  # PACKET_*
_HOSTS = ((0x01000000, 0x7EFFFFFF), (0x80000000, 0xDFFFFFFF), (0xF0000000, 0xFFFFFFFE))
"""All addresses that a host can use on a network: not loopback, multicast or 0.0.0.0/8."""
# Bits of a state, of nft's ct state and of xt_conntrack alike (NF_CT_STATE_BIT).
INVALID, ESTABLISHED, _RELATED, _NEW, _UNTRACKED = 1, 2, 4, 8, 64
CHANGING_STATUS = 2 | 4 | 8
"""Bits of an entry's status that the packets behind the first one set: IPS_SEEN_REPLY, IPS_ASSURED,
IPS_CONFIRMED. The others stay as the first packet has set them."""


class Field(enum.Enum):
    """What a rule can test, and of which we know the values that packets have."""

    SOURCE = enum.auto()
    DESTINATION = enum.auto()
    PROTOCOL = enum.auto()
    SOURCE_PORT = enum.auto()
    DESTINATION_PORT = enum.auto()
    TCP_FLAGS = enum.auto()
    FRAGMENT = enum.auto()
    """Flags and offset, as the IPv4 header has them."""
    FAMILY = enum.auto()
    """NFPROTO_*."""
    ETHERTYPE = enum.auto()
    STATE = enum.auto()
    """Of conntrack: a set of the bits above."""
    STATUS = enum.auto()
    """Of conntrack's entry: those bits that may change while a connection lasts."""
    SOURCE_TYPE = enum.auto()
    """What the routing table calls the address: RTN_UNICAST, RTN_LOCAL ..."""
    DESTINATION_TYPE = enum.auto()
    IN = enum.auto()
    """Names of devices as netfilter's IP hooks see them, where a pod's packets come from its
    bridge."""
    OUT = enum.auto()
    IN_PORT = enum.auto()
    """Names of bridge ports."""
    OUT_PORT = enum.auto()
    PACKET_TYPE = enum.auto()
    """Whom the frame is for: PACKET_HOST, PACKET_MULTICAST ..."""


_TYPE_OF = {
    Field.SOURCE: Field.SOURCE_TYPE,
    Field.DESTINATION: Field.DESTINATION_TYPE,
}


class Match(enum.IntEnum):
    """How many of the packets a test fits."""

    NONE = 0
    SOME = 1
    ALL = 2


@dataclass(frozen=True, slots=True)
class NumberTest:
    """Whether a field's value is in `ranges`, after its bits outside `mask` are cleared."""

    field: Field
    ranges: Ranges
    is_negated: bool = False
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class NameTest:
    """Whether a device has one of these names. A name that ends in * is a prefix."""

    field: Field
    names: frozenset[str]
    is_negated: bool = False


Test = NumberTest | NameTest


@dataclass(frozen=True, slots=True)
class View:
    """The facts of a node that decide what its pods' packets look like."""

    network: IPv4Network
    """Of all pods."""
    local: IPv4Network
    """Of this node's."""
    bridges: frozenset[str]
    overlay: str
    """The VXLAN device; empty: there is none."""
    nics: frozenset[str]
    direct: frozenset[str]
    """The NICs by which packets leave without a tunnel."""
    address: IPv4Address
    """Our VTEP's."""
    peers: tuple[IPv4Address, ...]
    """All others'."""
    port: int
    """Of VXLAN."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A set of packets: the values that they have, by field. A missing field may have any value."""

    numbers: Mapping[Field, Ranges]
    names: Mapping[Field, frozenset[str]]
    is_inner: bool = True
    """Whether the addresses are pods'. Otherwise these are the tunnel's own packets."""
    moved: Field | None = None
    """The address that is not a pod's at this hook: NAT translates it later, or has done so."""
    has_copies: bool = False
    """Whether copies of some are among them. Conntrack must see a copy as it sees the packet."""

    def match(self, test: Test) -> Match:
        """How many of the packets `test` fits."""
        if isinstance(test, NameTest):
            found = names_match(self.names.get(test.field), test.names)
        else:
            found = _numbers_match(self.numbers.get(test.field), test)
        return Match(Match.ALL - found) if test.is_negated else found


def masked_test(field: Field, value: int, mask: int, *, is_negated: bool = False) -> NumberTest:
    """Whether a 32-bit field has `value` under `mask`. A mask that is a prefix becomes a range."""
    rest = mask ^ 0xFFFFFFFF
    if rest & (rest + 1):
        return NumberTest(field, ((value, value),), is_negated, mask)
    return NumberTest(field, ((value, value | rest),), is_negated)


def established(view: View, moved: Field | None = None) -> Packet:
    """Packets of pods' established connections, as the bypass takes them: TCP with ACK and without
    SYN and RST, UDP, ICMP, and no fragments. `moved`: see `Packet`.
    """
    flags = _values(*(n for n in range(256) if n & _ACK and not n & _SYN_RST))
    numbers = {**_inner(view, moved), Field.STATE: _values(ESTABLISHED), Field.TCP_FLAGS: flags}
    return Packet(numbers, _inner_names(view), moved=moved)


def of_any_state(view: View, moved: Field | None = None) -> Packet:
    """Packets of pods' connections from the first one on."""
    states = _values(INVALID, ESTABLISHED, _RELATED, _NEW, _UNTRACKED)
    return Packet({**_inner(view, moved), Field.STATE: states}, _inner_names(view), moved=moved)


def framed(view: View, moved: Field | None = None) -> Packet:
    """As `established`, where a bridge or a device sees frames. Conntrack may not have seen them
    yet, and the names of devices are those of ports.
    """
    states = _values(INVALID, ESTABLISHED, _UNTRACKED)
    return Packet({**established(view, moved).numbers, Field.STATE: states}, {}, moved=moved)


def unfollowed(packet: Packet) -> Packet:
    """The same packets before conntrack has seen them. Some of them count as INVALID until then."""
    states = _merged((*packet.numbers[Field.STATE], *_values(INVALID, _UNTRACKED)))
    return replace(packet, numbers={**packet.numbers, Field.STATE: states})


def copied(packet: Packet) -> Packet:
    """The same packets, and copies of those that open or close a connection (bpf/conntrack.h):
    multicast frames that a device receives, and no port of a bridge.
    """
    numbers = {**packet.numbers, Field.PACKET_TYPE: _values(_HOST, _MULTICAST)}
    return replace(packet, numbers=numbers, has_copies=True)


def tracked(packet: Packet) -> Packet:
    """The tunnel's packets where no rule has told conntrack not to track them."""
    return replace(packet, numbers={**packet.numbers, Field.STATE: _values(_NEW)})


def untracked(packet: Packet) -> Packet:
    """The same packets where a rule has told conntrack not to track them."""
    return replace(packet, numbers={**packet.numbers, Field.STATE: _values(_UNTRACKED)})


def sent(view: View) -> Packet:
    """The tunnel's packets to peers."""
    types = {Field.SOURCE_TYPE: _values(_LOCAL), Field.DESTINATION_TYPE: _values(_UNICAST)}
    ends = {Field.SOURCE: _addresses(view.address), Field.DESTINATION: _addresses(*view.peers)}
    return Packet({**_outer(view), **types, **ends}, {Field.OUT: view.nics}, is_inner=False)


def received(view: View) -> Packet:
    """The tunnel's packets from peers."""
    types = {Field.SOURCE_TYPE: _values(_UNICAST), Field.DESTINATION_TYPE: _values(_LOCAL)}
    ends = {Field.SOURCE: _addresses(*view.peers), Field.DESTINATION: _addresses(view.address)}
    return Packet({**_outer(view), **types, **ends}, {Field.IN: view.nics}, is_inner=False)


def _outer(view: View) -> dict[Field, Ranges]:
    """The tunnel's packets in either direction. Replies go to another port than the one that was
    sent from, so conntrack never calls a connection of the tunnel established.
    """
    return {
        Field.PROTOCOL: _values(_UDP),
        Field.DESTINATION_PORT: _values(view.port),
        Field.FRAGMENT: _values(0, _DONT_FRAGMENT),
        Field.FAMILY: _values(_IPV4),
        Field.ETHERTYPE: _values(_ETH_IPV4),
        Field.STATE: _values(_NEW, _UNTRACKED),
    }


def _inner(view: View, moved: Field | None) -> dict[Field, Ranges]:
    pods = ((int(view.network.network_address), int(view.network.broadcast_address)),)
    numbers = {
        Field.SOURCE: pods,
        Field.DESTINATION: pods,
        Field.PROTOCOL: _values(_TCP, _UDP, _ICMP),
        Field.FRAGMENT: _values(0, _DONT_FRAGMENT),
        Field.FAMILY: _values(_IPV4),
        Field.ETHERTYPE: _values(_ETH_IPV4),
        Field.SOURCE_TYPE: _values(_UNICAST),
        Field.DESTINATION_TYPE: _values(_UNICAST),
    }
    if moved:
        # A Service's address may have no route at all.
        numbers |= {moved: _HOSTS, _TYPE_OF[moved]: _values(_UNSPECIFIED, _UNICAST, _LOCAL)}
    return numbers


def _inner_names(view: View) -> dict[Field, frozenset[str]]:
    devices = view.bridges | view.direct | ({view.overlay} if view.overlay else set())
    return {Field.IN: devices, Field.OUT: devices}


def _addresses(*addresses: IPv4Address) -> Ranges:
    return _values(*map(int, addresses))


def _values(*values: int) -> Ranges:
    return _merged((value, value) for value in values)


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """In order, and those that touch as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def _numbers_match(possible: Ranges | None, test: NumberTest) -> Match:
    if possible is None:
        return Match.SOME
    if test.mask is not None:
        if sum(last - first + 1 for first, last in possible) > _MOST_VALUES:
            return Match.SOME
        values = (n for first, last in possible for n in range(first, last + 1))
        possible = _values(*(n & test.mask for n in values))
    inside, meets = 0, False
    for first, last in _merged(test.ranges):
        # By bisection: there may be 10,000 peers.
        starts_in = bisect_left(possible, first, key=_first)
        ends_in = bisect_right(possible, last, key=_last)
        inside += max(0, ends_in - starts_in)
        meets |= bisect_left(possible, first, key=_last) < bisect_right(possible, last, key=_first)
    if inside == len(possible):
        return Match.ALL
    return Match.SOME if meets else Match.NONE


def _first(run: tuple[int, int]) -> int:
    return run[0]


def _last(run: tuple[int, int]) -> int:
    return run[1]


def names_match(possible: frozenset[str] | None, wanted: frozenset[str]) -> Match:
    """How many of the names are among those wanted, of which some may be prefixes."""
    if possible is None:
        return Match.SOME
    fits = [any(is_named(name, pattern) for pattern in wanted) for name in possible]
    if all(fits):
        return Match.ALL if fits else Match.NONE
    return Match.SOME if any(fits) else Match.NONE


def is_named(name: str, pattern: str) -> bool:
    """Whether a device has this name, or a name with this prefix if there is a * behind it."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
