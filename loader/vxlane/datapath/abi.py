# SPDX-License-Identifier: Apache-2.0
"""The contract with the programs, read from bpf/vxlane.h: enums and ctypes structs.

Owns the reading of the header, and the enums that the rest of vxlane uses. The header may hold only
enums, and structs of fixed-width integers and arrays of them. Anything else is refused, because it
might be read wrongly. Imports no other module of vxlane but the errors.
"""

from __future__ import annotations

import ctypes
import re
from enum import Enum, EnumMeta, IntEnum, IntFlag
from importlib import resources
from typing import TYPE_CHECKING, Any

from vxlane.errors import ContractError

_SCALARS: dict[str, type[Any]] = {
    "__u8": ctypes.c_uint8,
    "__u16": ctypes.c_uint16,
    "__u32": ctypes.c_uint32,
    "__u64": ctypes.c_uint64,
    # Attributes that ctypes makes at run time, unknown to its type stubs.
    "__be16": getattr(ctypes.c_uint16, "__ctype_be__"),  # noqa: B009
    "__be32": getattr(ctypes.c_uint32, "__ctype_be__"),  # noqa: B009
}
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_GUARD = re.compile(
    r"^#(ifndef VXLANE_H|define VXLANE_H|include <linux/types.h>|endif)$", re.MULTILINE
)
_BLOCK = re.compile(r"\s*(enum|struct) (\w+) \{(.*?)\};", re.DOTALL)
_MEMBER = re.compile(r"(\w+) (\w+)(?:\[(\d+)\])?")
_VALUE = re.compile(r"(\w+)(?: = (?:(\d+)|(\d+) << (\d+)))?")


class Header:
    """The enums (name -> member -> value) and structs (name -> ctypes type) of a header text.

    Raises ContractError on a construct that is not part of the contract's small language.
    """

    def __init__(self, text: str) -> None:
        self.enums: dict[str, dict[str, int]] = {}
        self.structs: dict[str, type[ctypes.Structure]] = {}
        rest = _GUARD.sub("", _COMMENT.sub("", text)).strip()
        while rest:
            block = _BLOCK.match(rest)
            if not block:
                line = rest.splitlines()[0]
                msg = f"vxlane.h: can't read {line!r}; only plain enums and structs belong there"
                raise ContractError(msg)
            kind, name, body = block.groups()
            if kind == "enum":
                self.enums[name] = _enum(name, body)
            else:
                self.structs[name] = _struct(name, body)
            rest = rest[block.end() :].strip()


def _enum(name: str, body: str) -> dict[str, int]:
    members: dict[str, int] = {}
    following = 0
    for item in filter(None, (part.strip() for part in body.split(","))):
        match = _VALUE.fullmatch(item)
        if not match:
            raise ContractError(f"vxlane.h: enum {name}: {item!r} is neither a number nor 1 << n")
        label, number, base, shift = match.groups()
        if base is not None:
            following = int(base) << int(shift)
        elif number is not None:
            following = int(number)
        members[label] = following
        following += 1
    return members


def _struct(name: str, body: str) -> type[ctypes.Structure]:
    fields: list[tuple[str, type[Any]]] = []
    for item in filter(None, (part.strip() for part in body.split(";"))):
        match = _MEMBER.fullmatch(item)
        if not match or match[1] not in _SCALARS:
            msg = f"vxlane.h: struct {name}: {item!r} is no fixed-width integer or array of them"
            raise ContractError(msg)
        scalar = _SCALARS[match[1]]
        fields.append((match[2], scalar * int(match[3]) if match[3] else scalar))
    made = type(name, (ctypes.Structure,), {"_fields_": fields})
    if ctypes.sizeof(made) != sum(ctypes.sizeof(kind) for _, kind in fields):
        raise ContractError(f"vxlane.h: struct {name} has padding without a name; add a pad member")
    return made


def meanings(text: str, prefix: str) -> dict[str, str]:
    """The comments behind enumerators whose names begin with `prefix`, each as one line."""
    found = re.findall(rf"\b{prefix}(\w+),\s*/\*(.*?)\*/", text, re.DOTALL)
    return {name: " ".join(comment.split()) for name, comment in found}


_TEXT = resources.files("vxlane").joinpath("bpf").joinpath("vxlane.h").read_text()
_MEANINGS = meanings(_TEXT, "VERDICT_")
HEADER = Header(_TEXT)
ABI = HEADER.enums["contract"]["VXLANE_ABI"]


class _FromHeader(EnumMeta):
    """Members come from the header at run time, so a type checker can't list them."""

    if TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any: ...


def _members(name: str) -> list[tuple[str, int]]:
    """VERDICT_NO_PEER -> NO_PEER; the closing ..._COUNT is no member."""
    prefix = f"{name.upper()}_"
    return [
        (label.removeprefix(prefix), value)
        for label, value in HEADER.enums[name].items()
        if label != f"{prefix}COUNT"
    ]


class Program(IntEnum, metaclass=_FromHeader):
    """Where a packet was judged; `label` names the C function, the pin and the metric's label."""

    _ignore_ = "_name _value"
    for _name, _value in _members("program"):
        locals()[_name] = _value

    @property
    def label(self) -> str:
        """The member's name as labels, pins and tables spell it."""
        return self.name.lower()


class VerdictKind(Enum):
    """The kinds of verdicts, by which shares, tests and documents sum them up."""

    BYPASSED = "bypassed"
    """The packet was bypassed."""
    LEARNED = "learned"
    """The packet took the kernel path, and a flow was approved by it."""
    FOREIGN = "foreign"
    """The packet is not traffic between pods of the overlay."""
    IDENTITY = "identity"
    """The packet failed an identity check. It is dropped with --strict, else it takes the kernel
    path."""
    KERNEL_PATH = "kernel_path"
    """The packet took the kernel path, for the reason that the verdict names."""


class Verdict(IntEnum, metaclass=_FromHeader):
    """What became of a packet; see bpf/vxlane.h for each one's meaning."""

    _ignore_ = "_name _value"
    for _name, _value in _members("verdict"):
        locals()[_name] = _value

    @property
    def label(self) -> str:
        """The member's name as labels, pins and tables spell it."""
        return self.name.lower()

    @property
    def meaning(self) -> str:
        """The comment behind it in the header."""
        return _MEANINGS[self.name]

    @property
    def kind(self) -> VerdictKind:
        """The verdict's kind. The programs use the same ranges of verdicts."""
        if self <= Verdict.NAT:
            return VerdictKind.BYPASSED
        if self == Verdict.LEARNED:
            return VerdictKind.LEARNED
        if self in {Verdict.NOT_IP, Verdict.NOT_OVERLAY, Verdict.NO_PEER}:
            return VerdictKind.FOREIGN
        if Verdict.SPOOFED_ADDRESS <= self <= Verdict.TAGS:
            return VerdictKind.IDENTITY
        return VerdictKind.KERNEL_PATH


class Way(IntEnum, metaclass=_FromHeader):
    """How packets go to a peer: through the tunnel, or unchanged over a common link."""

    _ignore_ = "_name _value"
    for _name, _value in _members("way"):
        locals()[_name] = _value


class Guard(IntFlag, metaclass=_FromHeader):
    """Directions in which a pod's veth carries a mechanism that a bypass would skip."""

    _ignore_ = "_name _value"
    for _name, _value in _members("guard"):
        locals()[_name] = _value
