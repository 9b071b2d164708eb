# SPDX-License-Identifier: Apache-2.0
"""Decodes iptables-legacy's rules from the block of bytes in which the kernel keeps a table.

Layouts are those of linux/netfilter_ipv4/ip_tables.h. A jump is an offset into the block. A user
chain begins behind an entry with the target ERROR, which holds the chain's name. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vxlane.mechanisms import xtables
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.packet import Field, NumberTest, masked_test
from vxlane.mechanisms.rules import Base, ChainKey, Code, Family, Hook, Rule, Step, Unknown, Verdict

INFO = struct.Struct("=32sI5I5III")
"""struct ipt_getinfo: name, valid hooks, entry and end of each hook's chain, entries, bytes."""
_ENTRY = struct.Struct("=4s4s4s4s16s16s16s16sHBBIHHIQQ")  # struct ipt_entry
_EXTENSION = struct.Struct("=H29sB")  # xt_entry_match and xt_entry_target: size, name, revision
_COUNTERS = slice(96, 112)
_GOTO_FLAG, _FRAGMENT_FLAG = 2, 1
_INV_IN, _INV_OUT, _INV_SOURCE, _INV_DESTINATION, _INV_FRAGMENT, _INV_PROTOCOL = (
    1,
    2,
    8,
    16,
    32,
    64,
)
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
"""NF_IP_PRI_*."""
_VERDICTS: dict[int, tuple[Step, ...]] = {
    -1: (Verdict(Code.DROP),),
    -2: (Verdict(Code.ACCEPT),),
    # The program at the queue accepts a packet or drops it.
    -4: (Kind.QUEUE, Verdict(Code.ACCEPT)),
    -5: (Verdict(Code.RETURN),),
}
"""-NF_DROP - 1, -NF_ACCEPT - 1, -NF_QUEUE - 1 and XT_RETURN."""
_FRAGMENT_OFFSET = 0x1FFF


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """A table's chains."""

    bases: tuple[Base, ...]
    rules: dict[ChainKey, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class _Entry:
    offset: int
    end: int
    steps: tuple[Step, ...]
    target: str
    data: bytes
    is_goto: bool


def without_counters(block: bytes) -> bytes:
    """The block with all counters 0, so that equal blocks have equal rules."""
    plain, offset = bytearray(block), 0
    while offset < len(block):
        plain[offset + _COUNTERS.start : offset + _COUNTERS.stop] = bytes(16)
        (size,) = struct.unpack_from("=H", block, offset + 90)
        offset += size
    return bytes(plain)


def table(info: bytes, block: bytes) -> LegacyTable:
    """The table of one IPT_SO_GET_INFO and its IPT_SO_GET_ENTRIES."""
    name, valid, *numbers = INFO.unpack(info)
    starts, ends = numbers[:5], numbers[5:10]
    title = name.rstrip(b"\0").decode()
    names = {starts[hook]: hook.name for hook in Hook if hook < 5 and valid >> hook & 1}
    hooks = {hook.name: hook for hook in Hook if hook < 5 and valid >> hook & 1}
    entries = list(_entries(block))
    last = {ends[hook] for hook in hooks.values()}
    for entry in entries:
        if entry.target == "ERROR":
            names[entry.end] = entry.data.rstrip(b"\0").decode(errors="replace")
    keys = {at: ChainKey(Family.IP, title, of, is_legacy=True) for at, of in names.items()}
    policies = {entry.offset: _target(entry, keys) for entry in entries if entry.offset in last}
    rules: dict[ChainKey, list[Rule]] = {}
    chain: list[Rule] = []
    for entry in entries:
        if entry.offset in keys:
            chain = rules.setdefault(keys[entry.offset], [])
        if entry.target == "ERROR" or entry.offset in last:
            continue  # a chain's head, or a built-in chain's policy
        chain.append((*entry.steps, *_target(entry, keys)))
    bases = tuple(
        Base(
            ChainKey(Family.IP, title, of, is_legacy=True),
            hook,
            _PRIORITIES.get(title, 0),
            is_nat=title == "nat",
            drops=policies[ends[hook]] == [Verdict(Code.DROP)],
        )
        for of, hook in hooks.items()
    )
    return LegacyTable(bases, {key: tuple(found) for key, found in rules.items()})


def _entries(block: bytes) -> Iterator[_Entry]:
    offset = 0
    while offset < len(block):
        fields = _ENTRY.unpack_from(block, offset)
        target_offset, size = fields[12], fields[13]
        end, at = offset + size, offset + _ENTRY.size
        steps = list(_header(fields))
        while at < offset + target_offset:
            length, name, _ = _EXTENSION.unpack_from(block, at)
            data = block[at + _EXTENSION.size : at + length]
            steps += xtables.match_steps(_name(name), data)
            at += length
        _, name, _ = _EXTENSION.unpack_from(block, at)
        data = block[at + _EXTENSION.size : end]
        yield _Entry(offset, end, tuple(steps), _name(name), data, bool(fields[9] & _GOTO_FLAG))
        offset = end


def _header(fields: tuple[Any, ...]) -> Iterator[Step]:
    """The tests of a struct ipt_ip."""
    source, destination, source_mask, destination_mask = (
        int.from_bytes(field, "big") for field in fields[:4]
    )
    into, out, into_mask, out_mask, protocol, flags, inverted = fields[4:11]
    for field, address, mask, bit in (
        (Field.SOURCE, source, source_mask, _INV_SOURCE),
        (Field.DESTINATION, destination, destination_mask, _INV_DESTINATION),
    ):
        if mask:
            yield masked_test(field, address, mask, is_negated=bool(inverted & bit))
    for field, name, letters, bit in (
        (Field.IN, into, into_mask, _INV_IN),
        (Field.OUT, out, out_mask, _INV_OUT),
    ):
        if any(letters):
            yield xtables.name_test(field, name, letters, is_negated=bool(inverted & bit))
    if protocol:
        yield NumberTest(Field.PROTOCOL, ((protocol, protocol),), bool(inverted & _INV_PROTOCOL))
    if flags & _FRAGMENT_FLAG:
        is_whole = bool(inverted & _INV_FRAGMENT)
        yield NumberTest(Field.FRAGMENT, ((0, 0),), not is_whole, _FRAGMENT_OFFSET)


def _target(entry: _Entry, keys: dict[int, ChainKey]) -> list[Step]:
    if entry.target:
        return xtables.target_steps(entry.target, entry.data)
    (verdict,) = struct.unpack_from("=i", entry.data)
    if verdict == entry.end:
        return []  # a rule without a target
    if verdict >= 0:
        code = Code.GOTO if entry.is_goto else Code.JUMP
        return [Verdict(code, keys[verdict].chain)] if verdict in keys else [Unknown.TEST]
    return list(_VERDICTS.get(verdict, (Kind.UNKNOWN,)))


def _name(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="replace")
