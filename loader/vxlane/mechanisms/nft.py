# SPDX-License-Identifier: Apache-2.0
"""nftables' rules, from the bytes that the kernel's netlink dump has for them.

Attributes and keys are those of linux/netfilter/nf_tables.h. A rule loads something into a
register and compares the register: what is in each is followed here. Pure.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from vxlane.mechanisms import xtables
from vxlane.mechanisms.kinds import Kind, Ranges
from vxlane.mechanisms.packet import Field, NameTest, NumberTest, Test, masked_test
from vxlane.mechanisms.rules import Choice, Code, Family, Rule, Step, Unknown, Verdict
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import attribute_list, attributes

# enum nft_verdicts; the codes that are not negative are netfilter's own (NF_DROP, NF_ACCEPT ...).
_JUMP, _GOTO, _RETURN = -3, -4, -5
_CONTINUES = {-1, -2}

# enum nft_meta_keys
_META_MARK, _META_NFTRACE = 3, 12
_META_INDEXES = {4: Field.IN, 5: Field.OUT}
_META_NAMES = {6: Field.IN, 7: Field.OUT, 17: Field.IN, 18: Field.OUT}
_META_BRIDGES = {17, 18}
_META_NETWORK = {1: Field.ETHERTYPE, 15: Field.FAMILY, 16: Field.PROTOCOL}
_META_KINDS = {
    0: Kind.LENGTH,
    20: Kind.STATISTIC,  # the CPU
    24: Kind.STATISTIC,  # a random number
    30: Kind.TIME,
    31: Kind.TIME,
    32: Kind.TIME,
}
_META_SETS = {_META_MARK: Kind.MARK, 2: Kind.MARK, 14: Kind.MARK, _META_NFTRACE: Kind.LOG}

# enum nft_ct_keys
_CT_STATE = 0
_CT_KINDS = {5: Kind.CONNBYTES, 14: Kind.CONNBYTES, 15: Kind.CONNBYTES, 16: Kind.CONNBYTES}
_CT_ZONE = 17

_FIB_ADDRESS_TYPE, _FIB_OF_SOURCE = 3, 1
_TCP_OPTION = 1

_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_LAYOUT = {
    _LINK: ((0, 6, Kind.HEADER), (6, 6, Kind.HEADER), (12, 2, Field.ETHERTYPE)),
    _NETWORK: (
        (0, 1, Unknown.TEST),
        (1, 1, Kind.HEADER),
        (2, 2, Kind.LENGTH),
        (4, 2, Kind.HEADER),
        (6, 2, Field.FRAGMENT),
        (8, 1, Kind.HEADER),
        (9, 1, Field.PROTOCOL),
        (10, 2, Kind.HEADER),
        (12, 4, Field.SOURCE),
        (16, 4, Field.DESTINATION),
    ),
    # The first two bytes are an ICMP message's type and code too: of one flow they stay the same.
    _TRANSPORT: (
        (0, 2, Field.SOURCE_PORT),
        (2, 2, Field.DESTINATION_PORT),
        (13, 1, Field.TCP_FLAGS),
    ),
}

ACTIONS = {
    "limit": Kind.LIMIT,
    "connlimit": Kind.LIMIT,
    "quota": Kind.QUOTA,
    "numgen": Kind.STATISTIC,
    "inner": Kind.PAYLOAD,
    "dynset": Kind.SET,
    "log": Kind.LOG,
    "queue": Kind.QUEUE,
    "dup": Kind.COPY,
    "fwd": Kind.COPY,
    "synproxy": Kind.SYNPROXY,
    "tproxy": Kind.TPROXY,
    "flow_offload": Kind.FLOWTABLE,
    "notrack": Kind.NOTRACK,
}
_HARMLESS = frozenset({"counter", "last", "nat", "masq", "redir"})
_OF_CONNECTION = frozenset({"hash", "socket", "osf", "rt", "xfrm", "tunnel", "secmark"})

# NFT_OBJECT_*
OBJECTS = {
    1: Kind.ACCOUNT,
    2: Kind.QUOTA,
    3: Kind.HELPER,
    4: Kind.LIMIT,
    5: Kind.LIMIT,
    7: Kind.TIMEOUT,
    8: Kind.MARK,
    9: Kind.HELPER,
    10: Kind.SYNPROXY,
}


@dataclass(frozen=True, slots=True)
class SetContent:
    """What a set that a rule looks into holds; a map to verdicts holds those too."""

    elements: tuple[tuple[bytes, bytes, Verdict | None], ...]
    """First and last key of each element."""
    is_whole: bool = True
    """False: its elements may come and go without a change of the rules."""
    kinds: tuple[Kind, ...] = ()
    """What its elements do each time one is found."""
    objects: Kind | None = None
    """What a map to named objects leads to."""


SetOf = Callable[[str], SetContent]
NameOf = Callable[[int], str]
"""A device's name by ifindex; empty where there is none."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of what a register holds."""

    what: Field | Unknown
    size: int
    """In bytes."""
    shift: int = 0
    """Bits of the field below what was loaded."""
    mask: int | None = None
    is_host: bool = False
    """A number in the host's byte order."""


_Register = tuple[_Piece, ...] | int
"""What was loaded, or a constant."""
_ANYTHING = _Piece(Unknown.TEST, 0)
_OTHER: _Register = (_ANYTHING,)


class Decoder:
    """Reads the rules of one table."""

    def __init__(self, family: Family, set_of: SetOf, name_of: NameOf) -> None:
        self._family = family
        self._set_of = set_of
        self._name_of = name_of
        self._registers: dict[int, _Register] = {}
        self._readers: dict[str, Callable[[dict[int, bytes]], Iterator[Step]]] = {
            "meta": self._meta,
            "ct": self._ct,
            "payload": self._payload,
            "exthdr": self._exthdr,
            "fib": self._fib,
            "bitwise": self._bitwise,
            "cmp": self._cmp,
            "range": self._range,
            "lookup": self._lookup,
            "immediate": self._immediate,
        }

    def rule(self, expressions: bytes) -> Rule:
        """The rule of an NFTA_RULE_EXPRESSIONS."""
        self._registers = {}
        steps: list[Step] = []
        for _, expression in attribute_list(expressions):
            found = attributes(expression, 0)
            name = _text(found[1])
            steps += self._steps(name, attributes(found.get(2, b""), 0))
        return tuple(steps)

    def _steps(self, name: str, found: dict[int, bytes]) -> Iterator[Step]:
        """What one expression tests or does."""
        if name in self._readers:
            yield from self._readers[name](found)
        elif name in ACTIONS:
            yield ACTIONS[name]
        elif name == "reject":
            yield Verdict(Code.END)
        elif name == "objref":
            by_map = self._set_of(_text(found[4])).objects if 4 in found else None
            yield by_map or OBJECTS.get(_be32(found, 1), Kind.UNKNOWN)
        elif name == "match":
            yield from xtables.match_steps(_text(found[1]), found.get(3, b""))
        elif name == "target":
            yield from xtables.target_steps(_text(found[1]), found.get(3, b""))
        elif name == "byteorder":
            self._registers[_be32(found, 2)] = _OTHER
        elif name in _OF_CONNECTION:
            yield Unknown.TEST
        elif name not in _HARMLESS:
            yield Kind.UNKNOWN
        if name in _OF_CONNECTION | {"numgen"}:
            self._registers.clear()

    def _meta(self, found: dict[int, bytes]) -> Iterator[Step]:
        key, register = _be32(found, 2), _be32(found, 1)
        if 3 in found:
            if key != _META_MARK or self._registers.get(_be32(found, 3)) != 0:
                yield _META_SETS.get(key, Kind.REWRITE)
        elif key in _META_KINDS:
            yield _META_KINDS[key]
            self._registers[register] = _OTHER
        elif key in _META_NAMES:
            field = _META_NAMES[key]
            is_port = self._family is Family.BRIDGE and key not in _META_BRIDGES
            self._registers[register] = (_Piece(_PORTS[field] if is_port else field, 16),)
        elif key in _META_INDEXES:
            field = _META_INDEXES[key]
            is_port = self._family is Family.BRIDGE
            self._registers[register] = (_Piece(_PORTS[field] if is_port else field, 4),)
        elif key in _META_NETWORK:
            self._registers[register] = (_Piece(_META_NETWORK[key], 0),)
        else:
            is_mark = key == _META_MARK
            self._registers[register] = _MARK if is_mark else _OTHER

    def _ct(self, found: dict[int, bytes]) -> Iterator[Step]:
        key = _be32(found, 2)
        if 4 in found:
            yield Kind.NOTRACK if key == _CT_ZONE else Kind.MARK
            return
        if key in _CT_KINDS:
            yield _CT_KINDS[key]
        is_state = key == _CT_STATE
        self._registers[_be32(found, 1)] = _STATE if is_state else _OTHER

    def _payload(self, found: dict[int, bytes]) -> Iterator[Step]:
        if 5 in found:
            yield Kind.REWRITE
            return
        pieces: list[_Piece] = []
        base, offset, size = (_be32(found, key) for key in (2, 3, 4))
        for start, length, what in _LAYOUT.get(base, ()):
            first, last = max(start, offset), min(start + length, offset + size)
            if first >= last:
                continue
            if isinstance(what, Kind):
                yield what
                what = Unknown.TEST  # noqa: PLW2901 (only the load tells of it)
            pieces.append(_Piece(what, last - first, shift=8 * (start + length - last)))
            if first > start and what is not Unknown.TEST:
                pieces[-1] = _Piece(Unknown.TEST, last - first)
        if sum(piece.size for piece in pieces) != size:
            yield Kind.PAYLOAD
            pieces = [_Piece(Unknown.TEST, size)]
        self._registers[_be32(found, 1)] = tuple(pieces)

    def _exthdr(self, found: dict[int, bytes]) -> Iterator[Step]:
        yield Kind.REWRITE if 7 in found or 1 not in found else Kind.HEADER
        self._registers[_be32(found, 1)] = _OTHER

    def _fib(self, found: dict[int, bytes]) -> Iterator[Step]:
        yield from ()
        register, result, flags = (_be32(found, key) for key in (1, 2, 3))
        is_source = bool(flags & _FIB_OF_SOURCE)
        field = Field.SOURCE_TYPE if is_source else Field.DESTINATION_TYPE
        is_type = result == _FIB_ADDRESS_TYPE
        self._registers[register] = (_Piece(field, 4, is_host=True),) if is_type else _OTHER

    def _bitwise(self, found: dict[int, bytes]) -> Iterator[Step]:
        yield from ()
        source = self._registers.get(_be32(found, 1), _OTHER)
        mask, xor = _data(found.get(4, b"")), _data(found.get(5, b""))
        result = _OTHER
        if source is _MARK and not any(xor):
            result = 0  # bits of a mark are cleared
        elif isinstance(source, tuple) and len(source) == 1 and not any(xor) and mask:
            piece = source[0]
            number = int.from_bytes(mask, _order(piece)) << piece.shift
            result = (replace(piece, mask=number),)
        self._registers[_be32(found, 2)] = result

    def _cmp(self, found: dict[int, bytes]) -> Iterator[Step]:
        source = self._registers.get(_be32(found, 1), _OTHER)
        operation, data = _be32(found, 2), _data(found[3])
        pieces = source if isinstance(source, tuple) else ()
        if operation != 0 and len(pieces) != 1:
            yield Unknown.TEST
            return
        offset = 0
        for piece in pieces:
            size = piece.size if len(pieces) > 1 else len(data)
            yield self._compared(piece, operation, data[offset : offset + size])
            offset += size
        if not pieces:
            yield Unknown.TEST

    def _compared(self, piece: _Piece, operation: int, data: bytes) -> Step:
        """One comparison: EQ, NEQ, LT, LTE, GT, GTE."""
        if isinstance(piece.what, Unknown):
            return Unknown.TEST
        if piece.what in _NAMES:
            return self._named(piece, data, is_negated=operation == 1)
        low, high = _span(piece, data)
        if piece.mask is not None and piece.what in _ADDRESSES and operation <= 1:
            return masked_test(piece.what, low, piece.mask, is_negated=operation == 1)
        most = (1 << 32) - 1
        ranges = {
            2: ((0, low - 1),),
            3: ((0, high),),
            4: ((high + 1, most),),
            5: ((low, most),),
        }.get(operation, ((low, high),))
        return NumberTest(piece.what, ranges, operation == 1, piece.mask)

    def _named(self, piece: _Piece, data: bytes, *, is_negated: bool) -> Test:
        assert isinstance(piece.what, Field)
        if piece.size == 4:
            name = self._name_of(rt.U32.unpack(data)[0])
            return NameTest(piece.what, frozenset({name}), is_negated)
        # nft compares all 16 bytes of a whole name, iptables-nft those up to the NUL.
        text = data.rstrip(b"\0").decode(errors="replace")
        return NameTest(piece.what, frozenset({text if b"\0" in data else f"{text}*"}), is_negated)

    def _range(self, found: dict[int, bytes]) -> Iterator[Step]:
        source = self._registers.get(_be32(found, 1), _OTHER)
        piece = source[0] if isinstance(source, tuple) and len(source) == 1 else None
        if piece is None or isinstance(piece.what, Unknown) or piece.what in _NAMES:
            yield Unknown.TEST
            return
        low, high = _span(piece, _data(found[3]))[0], _span(piece, _data(found[4]))[1]
        yield NumberTest(piece.what, ((low, high),), _be32(found, 2) == 1, piece.mask)

    def _lookup(self, found: dict[int, bytes]) -> Iterator[Step]:
        source = self._registers.get(_be32(found, 2), _OTHER)
        piece = source[0] if isinstance(source, tuple) and len(source) == 1 else _ANYTHING
        content = self._set_of(_text(found[1]))
        yield from content.kinds
        if 3 not in found:
            yield self._member(piece, content, is_negated=bool(_be32(found, 5) & 1))
        elif _be32(found, 3) == 0:
            yield Choice(
                tuple(
                    (self._element(piece, low, high), verdict)
                    for low, high, verdict in content.elements
                    if verdict
                )
            )
        else:
            yield Unknown.TEST
            self._registers[_be32(found, 3)] = _OTHER

    def _member(self, piece: _Piece, content: SetContent, *, is_negated: bool) -> Step:
        tests = [self._element(piece, low, high) for low, high, _ in content.elements]
        if not content.is_whole or not tests or None in tests:
            return Unknown.TEST
        if isinstance(tests[0], NameTest):
            names = (test.names for test in tests if isinstance(test, NameTest))
            return NameTest(tests[0].field, frozenset().union(*names), is_negated)
        ranges = (test.ranges for test in tests if isinstance(test, NumberTest))
        assert tests[0]
        return NumberTest(
            tests[0].field, tuple(r for some in ranges for r in some), is_negated, piece.mask
        )

    def _element(self, piece: _Piece, low: bytes, high: bytes) -> Test | None:
        is_name = piece.what in _NAMES
        # A key of several fields begins in the register of the first one.
        if isinstance(piece.what, Unknown) or len(low) > (_NAME_SIZE if is_name else _FIELD_SIZE):
            return None
        if is_name:
            return self._named(piece, low, is_negated=False) if low == high else None
        ranges: Ranges = ((_span(piece, low)[0], _span(piece, high)[1]),)
        return NumberTest(piece.what, ranges, mask=piece.mask)

    def _immediate(self, found: dict[int, bytes]) -> Iterator[Step]:
        register = _be32(found, 1)
        if register == 0:
            if verdict := verdict_of(found[2]):
                yield verdict
        else:
            self._registers[register] = int(any(_data(found[2])))


_NAME_SIZE, _FIELD_SIZE = 16, 4
_PORTS = {Field.IN: Field.IN_PORT, Field.OUT: Field.OUT_PORT}
_NAMES = {*_PORTS, *_PORTS.values()}
_ADDRESSES = {Field.SOURCE, Field.DESTINATION}
_STATE: _Register = (_Piece(Field.STATE, 4, is_host=True),)
_MARK: _Register = (_Piece(Unknown.TEST, 4, is_host=True),)


def verdict_of(data: bytes) -> Verdict | None:
    """The verdict of nested NFTA_DATA_*; None where the rules just go on, or there is none."""
    verdict = attributes(data, 0).get(2)
    if verdict is None:
        return None
    found = attributes(verdict, 0)
    (code,) = struct.unpack(">i", found[1])
    if code in _CONTINUES:
        return None
    if code == _RETURN:
        return Verdict(Code.RETURN)
    if code in {_JUMP, _GOTO}:
        return Verdict(Code.JUMP if code == _JUMP else Code.GOTO, _text(found[2]))
    return Verdict(Code.END)


def _span(piece: _Piece, data: bytes) -> tuple[int, int]:
    """The lowest and the highest value of the field that agrees with what was loaded."""
    low = int.from_bytes(data, _order(piece)) << piece.shift
    return low, low + (1 << piece.shift) - 1


def _order(piece: _Piece) -> Literal["little", "big"]:
    return sys.byteorder if piece.is_host else "big"


def _data(nested: bytes) -> bytes:
    return attributes(nested, 0).get(1, b"")


def _be32(found: dict[int, bytes], key: int) -> int:
    return int(rt.BE32.unpack(found[key])[0]) if key in found else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
