# SPDX-License-Identifier: Apache-2.0
"""Decodes nftables' rules from the bytes of the kernel's netlink dump.

A rule loads something into a register and then compares the register, so the decoder keeps track
of what is in each. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from vxlane.mechanisms import xtables
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.nft_register import (
    ANYTHING,
    INDEX_SIZE,
    MARK,
    NAME_SIZE,
    OTHER,
    PORTS,
    STATE,
    STATUS,
    NameOf,
    Piece,
    Register,
    SetContent,
    data_of,
    verdict_of,
    word_of,
)
from vxlane.mechanisms.nft_words import (
    ACTIONS,
    CT_KINDS,
    DESTINATIONS,
    HARMLESS,
    LAYOUT,
    META_INDEXES,
    META_KINDS,
    META_NAMES,
    META_NUMBERS,
    META_PORTS,
    META_SETS,
    OBJECTS,
    OF_CONNECTION,
    OF_ONE_REGISTER,
    SOURCES,
    TRANSLATIONS,
)
from vxlane.mechanisms.packet import CHANGING_STATUS, Field, NumberTest, Packet
from vxlane.mechanisms.rules import Action, Choice, Code, Family, Rule, Step, Unknown, Verdict
from vxlane.netlink import nftables as nft
from vxlane.netlink.socket import attribute_list, attributes, be32_of, text_of

SetOf = Callable[[str], SetContent]
"""What a set of the rule's table holds, by name."""
Found = Mapping[int, bytes]
"""Attributes of an expression."""
_ICMP, _UDP = (Packet({Field.PROTOCOL: ((number, number),)}, {}) for number in (1, 17))


class Decoder:
    """Reads the rules of one table."""

    def __init__(self, family: Family, set_of: SetOf, name_of: NameOf) -> None:
        self._family = family
        self._set_of = set_of
        self._name_of = name_of
        self._registers: dict[int, Register] = {}
        self._rule: list[Step] = []
        """The steps of the rule that is being read, so far."""
        self._readers: dict[str, Callable[[Found], Iterator[Step]]] = {
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
            "objref": self._objref,
        }

    def rule(self, expressions: bytes) -> Rule:
        """The rule of an NFTA_RULE_EXPRESSIONS."""
        self._registers.clear()
        self._rule.clear()
        for _, expression in attribute_list(expressions):
            found = attributes(expression, 0)
            data = attributes(found.get(nft.NFTA_EXPR_DATA, b""), 0)
            self._rule += list(self._steps(text_of(found[nft.NFTA_EXPR_NAME]), data))
        return tuple(self._rule)

    def _steps(self, name: str, found: Found) -> Iterator[Step]:
        """What one expression tests or does."""
        if name in self._readers:
            yield from self._readers[name](found)
            return
        if name in ACTIONS:
            yield ACTIONS[name]
        elif name in TRANSLATIONS:
            yield Action.TRANSLATE
        elif name == "reject":
            yield Verdict(Code.DROP)
        elif name == "match":
            data = found.get(nft.NFTA_MATCH_INFO, b"")
            yield from xtables.match_steps(text_of(found[nft.NFTA_MATCH_NAME]), data)
        elif name == "target":
            data = found.get(nft.NFTA_TARGET_INFO, b"")
            yield from xtables.target_steps(text_of(found[nft.NFTA_TARGET_NAME]), data)
        elif name in OF_CONNECTION:
            yield Unknown.TEST
        elif name not in HARMLESS and name not in DESTINATIONS:
            yield Kind.UNKNOWN
        if name in DESTINATIONS:
            yield from self._undecoded(name, found)
        elif name not in HARMLESS:
            # Some of these write a register, and we do not know which.
            self._registers.clear()

    def _undecoded(self, name: str, found: Found) -> Iterator[Step]:
        """Only the register that is written changes: a key may hold other fields beside it."""
        if name in SOURCES:
            first, size = (be32_of(found, key) for key in SOURCES[name])
            yield from _fields(self._of_key(first, size))
        self._registers[be32_of(found, DESTINATIONS[name])] = OTHER

    def _objref(self, found: Found) -> Iterator[Step]:
        kind = OBJECTS.get(be32_of(found, nft.NFTA_OBJREF_IMM_TYPE))
        if nft.NFTA_OBJREF_SET_NAME in found:
            content = self._set_of(text_of(found[nft.NFTA_OBJREF_SET_NAME]))
            piece = self._piece(be32_of(found, nft.NFTA_OBJREF_SET_SREG))
            yield piece.member(content, self._name_of, is_negated=False)
            kind = content.objects
        yield kind or Kind.UNKNOWN

    def _meta(self, found: Found) -> Iterator[Step]:
        key = be32_of(found, nft.NFTA_META_KEY)
        if nft.NFTA_META_SREG in found:
            # A mark of 0 is what packets come with.
            value = self._registers.get(be32_of(found, nft.NFTA_META_SREG))
            if key != nft.NFT_META_MARK or value != 0:
                yield META_SETS.get(key, Kind.REWRITE)
            return
        if key in META_KINDS:
            yield META_KINDS[key]
        self._registers[be32_of(found, nft.NFTA_META_DREG)] = self._of_meta(key)

    def _of_meta(self, key: int) -> Register:
        """What a register holds after this key was loaded."""
        if key == nft.NFT_META_MARK:
            return MARK
        if key in META_NUMBERS:
            return (Piece(META_NUMBERS[key], 0),)
        field = META_NAMES.get(key) or META_INDEXES.get(key)
        if field is None:
            return OTHER
        if self._family is Family.BRIDGE and key in META_PORTS:
            field = PORTS[field]
        return (Piece(field, NAME_SIZE if key in META_NAMES else INDEX_SIZE),)

    def _ct(self, found: Found) -> Iterator[Step]:
        key = be32_of(found, nft.NFTA_CT_KEY)
        if nft.NFTA_CT_SREG in found:
            yield Kind.ZONE if key == nft.NFT_CT_ZONE else Kind.MARK
            return
        if key in CT_KINDS:
            yield CT_KINDS[key]
        if key != nft.NFT_CT_STATE:
            yield Unknown.CONNECTION
        held = {nft.NFT_CT_STATE: STATE, nft.NFT_CT_STATUS: STATUS}.get(key, OTHER)
        self._registers[be32_of(found, nft.NFTA_CT_DREG)] = held

    def _payload(self, found: Found) -> Iterator[Step]:
        if nft.NFTA_PAYLOAD_SREG in found:
            yield Kind.REWRITE
            return
        base, offset, size = (
            be32_of(found, key)
            for key in (nft.NFTA_PAYLOAD_BASE, nft.NFTA_PAYLOAD_OFFSET, nft.NFTA_PAYLOAD_LEN)
        )
        pieces: list[Piece] = []
        for start, length, meaning in LAYOUT.get(base, ()):
            first, last = max(start, offset), min(start + length, offset + size)
            if first >= last:
                continue
            what = self._beside_tcp(meaning) or meaning
            if isinstance(what, Kind):
                yield what
            # A field whose first bytes are not loaded can't be compared.
            field = what if isinstance(what, Field) and first == start else Unknown.TEST
            pieces.append(Piece(field, last - first, shift=8 * (start + length - last)))
        if sum(piece.size for piece in pieces) != size:
            yield Kind.PAYLOAD
            pieces = [Piece(Unknown.TEST, size)]
        self._registers[be32_of(found, nft.NFTA_PAYLOAD_DREG)] = tuple(pieces)

    def _beside_tcp(self, meaning: Field | Kind | Unknown) -> Kind | None:
        """What these bytes of TCP are in ICMP and UDP, if the rule has not ruled these out so far.

        A rule about ports need not ask for the protocol. nft asks for it before TCP's flags.
        """
        asked = [
            step
            for step in self._rule
            if isinstance(step, NumberTest) and step.field is Field.PROTOCOL
        ]
        may_be_icmp, may_be_udp = (all(map(other.match, asked)) for other in (_ICMP, _UDP))
        if meaning is Field.DESTINATION_PORT and asked and may_be_icmp:
            return Kind.HEADER
        return Kind.PAYLOAD if meaning is Field.TCP_FLAGS and (may_be_icmp or may_be_udp) else None

    def _exthdr(self, found: Found) -> Iterator[Step]:
        is_read = nft.NFTA_EXTHDR_DREG in found and nft.NFTA_EXTHDR_SREG not in found
        if not is_read:
            yield Kind.REWRITE
        elif be32_of(found, nft.NFTA_EXTHDR_OP) != nft.NFT_EXTHDR_OP_IPV4:
            yield Kind.HEADER  # no packet with options of IPv4 is bypassed
        self._registers[be32_of(found, nft.NFTA_EXTHDR_DREG)] = OTHER

    def _fib(self, found: Found) -> Iterator[Step]:
        yield from ()
        is_source = bool(be32_of(found, nft.NFTA_FIB_FLAGS) & nft.NFTA_FIB_F_SADDR)
        field = Field.SOURCE_TYPE if is_source else Field.DESTINATION_TYPE
        is_type = be32_of(found, nft.NFTA_FIB_RESULT) == nft.NFT_FIB_RESULT_ADDRTYPE
        register = (Piece(field, 4, is_host=True),) if is_type else OTHER
        self._registers[be32_of(found, nft.NFTA_FIB_DREG)] = register

    def _bitwise(self, found: Found) -> Iterator[Step]:
        source = self._registers.get(be32_of(found, nft.NFTA_BITWISE_SREG), OTHER)
        second = self._registers.get(be32_of(found, nft.NFTA_BITWISE_SREG2), OTHER)
        is_of_one = be32_of(found, nft.NFTA_BITWISE_OP) in OF_ONE_REGISTER
        mask = data_of(found.get(nft.NFTA_BITWISE_MASK, b""))
        has_xor = any(data_of(found.get(nft.NFTA_BITWISE_XOR, b"")))
        result = OTHER
        if not is_of_one or nft.NFTA_BITWISE_SREG2 in found:
            yield from _fields((*_all(source), *_all(second)))
        elif source is MARK and not has_xor:
            result = 0  # packets come unmarked, so to clear bits of the mark gives 0
        elif isinstance(source, tuple) and len(source) == 1 and not has_xor and mask:
            bits = source[0].number(mask)
            if source is not STATUS or bits & CHANGING_STATUS:
                result = (replace(source[0], mask=bits),)
        else:
            yield from _fields(_all(source))
        self._registers[be32_of(found, nft.NFTA_BITWISE_DREG)] = result

    def _cmp(self, found: Found) -> Iterator[Step]:
        source = self._registers.get(be32_of(found, nft.NFTA_CMP_SREG), OTHER)
        operation, data = be32_of(found, nft.NFTA_CMP_OP), data_of(found[nft.NFTA_CMP_DATA])
        pieces = source if isinstance(source, tuple) else OTHER
        assert isinstance(pieces, tuple)
        if source in {MARK, 0} and any(data) == (operation == nft.NFT_CMP_EQ):
            yield Unknown.MARKED
        elif len(pieces) == 1:
            yield pieces[0].compared(operation, data, self._name_of)
        elif operation != nft.NFT_CMP_EQ:
            yield Unknown.TEST
        else:
            # nft compares fields that stand side by side in one go.
            for piece in pieces:
                yield piece.compared(operation, data[: piece.size], self._name_of)
                data = data[piece.size :]

    def _range(self, found: Found) -> Iterator[Step]:
        low, high = found[nft.NFTA_RANGE_FROM_DATA], found[nft.NFTA_RANGE_TO_DATA]
        is_negated = be32_of(found, nft.NFTA_RANGE_OP) == nft.NFT_RANGE_NEQ
        piece = self._piece(be32_of(found, nft.NFTA_RANGE_SREG))
        yield piece.between(data_of(low), data_of(high), is_negated=is_negated)

    def _lookup(self, found: Found) -> Iterator[Step]:
        source = be32_of(found, nft.NFTA_LOOKUP_SREG)
        piece = self._piece(source)
        content = self._set_of(text_of(found[nft.NFTA_LOOKUP_SET]))
        branches = [
            (piece.element(low, high, self._name_of), verdict)
            for low, high, verdict in content.elements
        ]
        is_known = content.is_whole and branches and all(test for test, _ in branches)
        yield from content.kinds
        if not is_known:
            yield from _fields(self._of_key(source, content.key_size))
        is_map = nft.NFTA_LOOKUP_DREG in found
        if is_map and be32_of(found, nft.NFTA_LOOKUP_DREG) == nft.NFT_REG_VERDICT:
            yield Choice(tuple((test, verdict) for test, verdict in branches if verdict))
            return
        # A map without such an element ends the rule, as a set does.
        is_negated = bool(be32_of(found, nft.NFTA_LOOKUP_FLAGS) & nft.NFT_LOOKUP_F_INV)
        yield piece.member(content, self._name_of, is_negated=is_negated)
        if is_map:
            self._registers[be32_of(found, nft.NFTA_LOOKUP_DREG)] = OTHER

    def _of_key(self, register: int, size: int) -> Iterator[Piece]:
        """What was loaded for a set's key of `size` bytes, which begins in `register`.

        Each field of a key has a word or more of its own.
        """
        first = word_of(register)
        last = first + (size - 1) // nft.NFT_REG32_SIZE
        for number, held in self._registers.items():
            if first <= word_of(number) <= last:
                yield from _all(held)

    def _piece(self, register: int) -> Piece:
        """The one field that a register holds. ANYTHING: it holds several fields, or none."""
        held = self._registers.get(register, OTHER)
        return held[0] if isinstance(held, tuple) and len(held) == 1 else ANYTHING

    def _immediate(self, found: Found) -> Iterator[Step]:
        register, data = be32_of(found, nft.NFTA_IMMEDIATE_DREG), found[nft.NFTA_IMMEDIATE_DATA]
        if register != nft.NFT_REG_VERDICT:
            self._registers[register] = int(any(data_of(data)))
        elif verdict := verdict_of(data):
            yield verdict


def _all(held: Register) -> tuple[Piece, ...]:
    return held if isinstance(held, tuple) else ()


def _fields(pieces: Iterable[Piece]) -> Iterator[Field]:
    return (piece.what for piece in pieces if isinstance(piece.what, Field))
