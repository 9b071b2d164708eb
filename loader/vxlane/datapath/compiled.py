# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as `load` takes them: instructions, and the maps that they use.

They hold nothing of a node yet. An instruction that loads a map or a number of the node (an
`ld_imm64`, two slots of struct bpf_insn in linux/bpf.h) says which one:

    source register 1 (BPF_PSEUDO_MAP_FD)   imm: the map's place among `maps`
    source register 15 (MARK_OF_NODE)       imm: a NODE_... of bpf/vxlane.h

Pure: imports the contract only.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vxlane.datapath.abi import HEADER

_INSTRUCTION = struct.Struct("<BBhi")  # code, both registers, offset, imm
_LOAD_NUMBER = 0x18  # BPF_LD | BPF_IMM | BPF_DW
_OF_MAP = 1
_OF_NODE = HEADER.enums["mark"]["MARK_OF_NODE"]
RING_BYTES = "RING_BYTES"
"""The size of a ring buffer, by the name that `sizes` gives it."""


@dataclass(frozen=True, slots=True)
class Table:
    """The description of a map that is to be made."""

    kind: int
    """enum bpf_map_type of linux/bpf.h."""
    key: int
    """Bytes."""
    value: int
    """Bytes."""
    entries: int | str
    """How many. A name stands for a size that each node sets."""
    flags: int

    def most(self, sizes: Mapping[str, int]) -> int:
        """The number of entries on a node with these sizes."""
        return sizes[self.entries] if isinstance(self.entries, str) else self.entries


@dataclass(frozen=True, slots=True)
class Compiled:
    """Programs by the names of their functions, and all maps that they use."""

    headers: str
    """Which kernel headers they were compiled with; for people."""
    maps: Mapping[str, Table]
    programs: Mapping[str, bytes]

    def document(self) -> dict[str, Any]:
        """As a JSON document; see `of`."""
        programs = {name: base64.b64encode(code).decode() for name, code in self.programs.items()}
        maps = {name: asdict(table) for name, table in self.maps.items()}
        return {"headers": self.headers, "maps": maps, "programs": programs}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Compiled:
        """From what `document` made. KeyError, TypeError or ValueError: it is something else."""
        return cls(
            headers=document["headers"],
            maps={name: Table(**table) for name, table in document["maps"].items()},
            programs={
                name: base64.b64decode(code, validate=True)
                for name, code in document["programs"].items()
            },
        )


def unlinked(code: bytes, place_of: Mapping[int, int]) -> bytes:
    """What a compiler made, with a map's place instead of its descriptor."""
    return _rewritten(code, {_OF_MAP: lambda number: (_OF_MAP, place_of[number])})


def linked(code: bytes, maps: Sequence[int], numbers: Sequence[int]) -> bytes:
    """What the kernel takes: descriptors of the maps, and the numbers of the node, are in."""
    return _rewritten(
        code,
        {
            _OF_MAP: lambda place: (_OF_MAP, maps[place]),
            _OF_NODE: lambda constant: (0, numbers[constant]),
        },
    )


def _rewritten(code: bytes, rules: Mapping[int, Callable[[int], tuple[int, int]]]) -> bytes:
    """`code` with each load whose source register has a rule as that makes (register, imm)."""
    made = bytearray(code)
    at = 0
    while at < len(made):
        operation, registers, offset, number = _INSTRUCTION.unpack_from(made, at)
        if operation == _LOAD_NUMBER and (rule := rules.get(registers >> 4)):
            source, number = rule(number)
            registers = source << 4 | registers & 0xF
            # As the kernel reads imm: the lower half of 64 bits, which no number here exceeds.
            signed = number - (1 << 32) if number >> 31 else number
            _INSTRUCTION.pack_into(made, at, operation, registers, offset, signed)
        at += _INSTRUCTION.size * (2 if operation == _LOAD_NUMBER else 1)
    return bytes(made)
