# SPDX-License-Identifier: Apache-2.0
"""What a rule of nftables has loaded into its registers, and what it compares them with. Pure."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field, NameTest, NumberTest, Test, masked_test
from vxlane.mechanisms.rules import Code, Step, Unknown, Verdict
from vxlane.netlink import nftables as nft
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import attributes, text_of

NameOf = Callable[[int], str]
"""A device's name by ifindex; empty where there is none."""

PORTS = {Field.IN: Field.IN_PORT, Field.OUT: Field.OUT_PORT}
_NAMES = {*PORTS, *PORTS.values()}
_ADDRESSES = {Field.SOURCE, Field.DESTINATION}
NAME_SIZE, INDEX_SIZE, _FIELD_SIZE = 16, 4, 4
_MOST = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class SetContent:
    """The elements of a set that a rule looks up; those of a verdict map have verdicts."""

    elements: tuple[tuple[bytes, bytes, Verdict | None], ...]
    """First and last key of each element."""
    is_whole: bool = True
    """False: elements may be added and removed without a change of the rules."""
    kinds: tuple[Kind, ...] = ()
    """What elements do each time they are found. SET: rules may add elements."""
    objects: Kind | None = None
    """The kind of the objects that a map of named objects leads to."""
    key_size: int = 64
    """Bytes of a key, each field padded to four; 64, all registers, where that is not known."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what a register holds."""

    what: Field | Unknown
    size: int
    """In bytes."""
    shift: int = 0
    """How many low bits of the field were not loaded."""
    mask: int | None = None
    is_host: bool = False
    """A number in the host's byte order."""

    def number(self, data: bytes) -> int:
        """The field's value if the loaded part is `data`. Bits that were not loaded are 0."""
        order = sys.byteorder if self.is_host else "big"
        return int.from_bytes(data, order) << self.shift

    def compared(self, operation: int, data: bytes, name_of: NameOf) -> Step:
        """The test of a comparison (NFT_CMP_*) with `data`."""
        is_negated = operation == nft.NFT_CMP_NEQ
        if isinstance(self.what, Unknown):
            return Unknown.TEST
        if self.what in _NAMES:
            return self._named(self.what, data, name_of, is_negated=is_negated)
        low, high = self._span(data)
        if self.mask is not None and self.what in _ADDRESSES and operation <= nft.NFT_CMP_NEQ:
            return masked_test(self.what, low, self.mask, is_negated=is_negated)
        ranges = {
            nft.NFT_CMP_LT: ((0, low - 1),),
            nft.NFT_CMP_LTE: ((0, high),),
            nft.NFT_CMP_GT: ((high + 1, _MOST),),
            nft.NFT_CMP_GTE: ((low, _MOST),),
        }.get(operation, ((low, high),))
        return NumberTest(self.what, ranges, is_negated, self.mask)

    def between(self, low: bytes, high: bytes, *, is_negated: bool) -> Step:
        """The test for values from `low` to `high`."""
        if isinstance(self.what, Unknown) or self.what in _NAMES:
            return Unknown.TEST
        ranges = ((self._span(low)[0], self._span(high)[1]),)
        return NumberTest(self.what, ranges, is_negated, self.mask)

    def element(self, low: bytes, high: bytes, name_of: NameOf) -> Test | None:
        """The test for an element of a set. None: it is not decoded, as a key of several fields is
        not, which begins in the register of the first one.
        """
        if isinstance(self.what, Unknown) or len(low) > max(self.size, _FIELD_SIZE):
            return None
        if self.what in _NAMES:
            # All names that begin so: an interval, or the * of a map.
            prefix = low.rstrip(b"\0")
            if self.size == NAME_SIZE and high == prefix.ljust(len(low), b"\xff"):
                return self._named(self.what, prefix, name_of)
            return self._named(self.what, low, name_of) if low == high else None
        return NumberTest(self.what, ((self._span(low)[0], self._span(high)[1]),), mask=self.mask)

    def member(self, content: SetContent, name_of: NameOf, *, is_negated: bool) -> Step:
        """The test for membership in a set."""
        tests = [self.element(low, high, name_of) for low, high, _ in content.elements]
        if not content.is_whole or not tests or None in tests:
            return Unknown.TEST
        assert isinstance(self.what, Field)
        if self.what in _NAMES:
            names = (test.names for test in tests if isinstance(test, NameTest))
            return NameTest(self.what, frozenset().union(*names), is_negated)
        ranges = (test.ranges for test in tests if isinstance(test, NumberTest))
        return NumberTest(
            self.what, tuple(r for some in ranges for r in some), is_negated, self.mask
        )

    def _named(
        self, field: Field, data: bytes, name_of: NameOf, *, is_negated: bool = False
    ) -> NameTest:
        if self.size == INDEX_SIZE:
            name = name_of(rt.U32.unpack(data)[0])
            return NameTest(field, frozenset({name}), is_negated)
        # nft compares all 16 bytes of a whole name, iptables-nft those up to the NUL.
        text = data.rstrip(b"\0").decode(errors="replace")
        return NameTest(field, frozenset({text if b"\0" in data else f"{text}*"}), is_negated)

    def _span(self, data: bytes) -> tuple[int, int]:
        """The lowest and the highest value of the field that agrees with what was loaded."""
        low = self.number(data)
        return low, low + (1 << self.shift) - 1


def word_of(register: int) -> int:
    """The first 32-bit word of a register: NFT_REG_1 to NFT_REG_4 have four words, NFT_REG32_* one.

    The kernel uses both names in one dump (nft_dump_register in net/netfilter/nf_tables_api.c).
    """
    if register >= nft.NFT_REG32_00:
        return register - nft.NFT_REG32_00
    return (register - nft.NFT_REG_1) * nft.NFT_REG_SIZE // nft.NFT_REG32_SIZE


def data_of(nested: bytes) -> bytes:
    """The value in nested NFTA_DATA_*."""
    return attributes(nested, 0).get(nft.NFTA_DATA_VALUE, b"")


def verdict_of(data: bytes) -> Verdict | None:
    """The verdict in nested NFTA_DATA_*. None: there is none, or the next rule follows anyway."""
    verdict = attributes(data, 0).get(nft.NFTA_DATA_VERDICT)
    if verdict is None:
        return None
    found = attributes(verdict, 0)
    (code,) = struct.unpack(">i", found[nft.NFTA_VERDICT_CODE])
    if code in {nft.NFT_CONTINUE, nft.NFT_BREAK}:
        return None
    if code == nft.NFT_RETURN:
        return Verdict(Code.RETURN)
    if code in {nft.NFT_JUMP, nft.NFT_GOTO}:
        chain = text_of(found[nft.NFTA_VERDICT_CHAIN])
        return Verdict(Code.JUMP if code == nft.NFT_JUMP else Code.GOTO, chain)
    return Verdict(Code.DROP if code == nft.NF_DROP else Code.ACCEPT)


Register = tuple[Piece, ...] | int
"""What was loaded, or a constant that was written."""
ANYTHING = Piece(Unknown.TEST, 0)
OTHER: Register = (ANYTHING,)
STATE: Register = (Piece(Field.STATE, 4, is_host=True),)
STATUS: Register = (Piece(Field.STATUS, 4, is_host=True),)
MARK: Register = (Piece(Unknown.TEST, 4, is_host=True),)
