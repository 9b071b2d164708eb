# SPDX-License-Identifier: Apache-2.0
"""Where members stand in the running kernel's structs, by its own account (BTF).

Source of the format: Documentation/bpf/btf.rst, include/uapi/linux/btf.h. Knows bytes and offsets,
nothing of what they mean.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from vxlane.errors import ContractError

KERNEL = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")

_ARRAY, _STRUCT, _UNION, _ENUM, _FUNC_PROTO, _INT, _VAR, _DATASEC = 3, 4, 5, 6, 13, 1, 14, 15
_DECL_TAG, _ENUM64 = 17, 19
_TRAILER = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
"""Bytes behind the common part of a type."""
_TRAILER_EACH = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
"""The same, for each member of it."""


class Btf:
    """The types of one BTF blob; ContractError on one that is not BTF as Linux writes it."""

    def __init__(self, blob: bytes) -> None:
        if len(blob) < _HEADER.size or _HEADER.unpack_from(blob)[0] != _MAGIC:
            raise ContractError("the kernel's BTF does not begin as BTF does")
        _, _, _, header, types, size, strings, length = _HEADER.unpack_from(blob)
        if len(blob) < header + strings + length:
            raise ContractError("the kernel's BTF is cut short")
        self._blob = blob
        self._strings = header + strings
        self._places = [0, *_places(blob, header + types, header + types + size)]

    def offsets(self, paths: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
        """Offsets in bytes: of each struct by dotted paths of its members.

        A member of a nested struct without a name is a member of the outer one, as in C.
        ContractError: the kernel has no such struct or member.
        """
        found = {self._name(place): place for place in self._structs()}
        return {
            name: {path: self._walk(found, name, path) for path in members}
            for name, members in paths.items()
        }

    def _structs(self) -> Iterator[int]:
        """Those that have members."""
        for place in self._places[1:]:
            info = _TYPE.unpack_from(self._blob, place)[1]
            if (info >> 24) & 31 == _STRUCT and info & 0xFFFF:
                yield place

    def _walk(self, structs: Mapping[str, int], name: str, path: str) -> int:
        place, offset = structs.get(name), 0
        for word in path.split("."):
            step = None if place is None else self._member(place, word)
            if step is None:
                raise ContractError(f"this kernel's struct {name} has no member {path}")
            offset += step[0]
            place = self._places[step[1]]
        return offset

    def _member(self, place: int, name: str) -> tuple[int, int] | None:
        """Offset in bytes and type of a member."""
        _, info, _ = _TYPE.unpack_from(self._blob, place)
        if (info >> 24) & 31 not in {_STRUCT, _UNION}:
            return None
        for number in range(info & 0xFFFF):
            at = place + _TYPE.size + number * _MEMBER.size
            label, kind, bits = _MEMBER.unpack_from(self._blob, at)
            # With kind_flag the upper eight bits are a bit field's size.
            offset = (bits & 0xFFFFFF if info >> 31 else bits) // 8
            if label == 0:
                if inner := self._member(self._places[kind], name):
                    return offset + inner[0], inner[1]
            elif self._text(label) == name:
                return offset, kind
        return None

    def _name(self, place: int) -> str:
        return self._text(_TYPE.unpack_from(self._blob, place)[0])

    def _text(self, offset: int) -> str:
        begin = self._strings + offset
        return self._blob[begin : self._blob.index(b"\0", begin)].decode()


def _places(blob: bytes, place: int, end: int) -> Iterator[int]:
    """Where each type begins."""
    while place < end:
        yield place
        info = _TYPE.unpack_from(blob, place)[1]
        kind = (info >> 24) & 31
        if kind > _ENUM64:
            raise ContractError(f"the kernel's BTF has a kind {kind}, which is not known here")
        place += _TYPE.size + _TRAILER.get(kind, 0)
        place += _TRAILER_EACH.get(kind, 0) * (info & 0xFFFF)
