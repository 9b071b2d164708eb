# SPDX-License-Identifier: Apache-2.0
"""Looker: a TC program that writes down what an skb carries beside its bytes. And one that sets it.

They are attached by links, before the programs under test, and run in that order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vxlane.datapath import load, loose, syscall
from vxlane.datapath.syscall import TcxHook
from vxlane.probes import instructions as bpf

_WORD, _BYTE, _LONG = 0x61, 0x71, 0x79  # BPF_LDX | BPF_MEM, by size
FIELDS = {
    "pkt_type": (4, _WORD),
    "mark": (8, _WORD),
    "queue_mapping": (12, _WORD),
    "protocol": (16, _WORD),
    "vlan_present": (20, _WORD),
    "vlan_tci": (24, _WORD),
    "vlan_proto": (28, _WORD),
    "priority": (32, _WORD),
    "ingress_ifindex": (36, _WORD),
    "tc_index": (44, _WORD),
    "hash": (68, _WORD),
    "tstamp": (152, _LONG),
    "gso_segs": (164, _WORD),
    "gso_size": (176, _WORD),
    "tstamp_type": (180, _BYTE),
}
"""name -> offset in struct __sk_buff (linux/bpf.h), how it is read"""
CSUM_LEVEL = "csum_level"
"""How many more checksums than one are known to be right; negative: none is."""
_ARRAY, _UPDATE, _CSUM_LEVEL = 2, 2, 135
_QUEUE_MAPPING, _PRIORITY = 12, 32
_SIZE = 8 * (len(FIELDS) + 1)
_KEY = -_SIZE - 8
_STORE, _STORE_ZERO, _LARGE = 0x7B, 0x7A, 0x18

QUEUE, PRIORITY, HASH = 3, 5, 0x12345678


class Looker:
    """The program, and the map that it writes to."""

    def __init__(self) -> None:
        attr = struct.pack("=IIIII", _ARRAY, 4, _SIZE, 1, 0)
        self._map, _ = syscall._bpf(load._MAP_CREATE, attr)
        self.program = loose.prog_load(self._code())

    def close(self) -> None:
        """Let go of both."""
        os.close(self.program)
        os.close(self._map)

    @contextmanager
    def at(self, ifindex: int, hook: TcxHook) -> Iterator[None]:
        """Look there, in the calling thread's namespace."""
        with linked(self.program, ifindex, hook):
            yield

    def seen(self) -> dict[str, int]:
        """What the last packet carried."""
        value = syscall.map_lookup(self._map, bytes(4), _SIZE)
        assert value is not None
        names = (*FIELDS, CSUM_LEVEL)
        return dict(zip(names, struct.unpack(f"={len(names)}q", value), strict=True))

    def _code(self) -> bytes:
        parts = [bpf.copy(bpf.CONTEXT, bpf.R1)]
        for number, (offset, kind) in enumerate(FIELDS.values()):
            parts += [_instruction(kind, bpf.R0, bpf.CONTEXT, offset), _keep(number)]
        level = bpf.copy(bpf.R1, bpf.CONTEXT), bpf.number(bpf.R2, 0), bpf.call(_CSUM_LEVEL)
        parts += [*level, _keep(len(FIELDS)), _instruction(_STORE_ZERO, bpf.STACK, 0, _KEY)]
        parts += [_instruction(_LARGE, bpf.R1, 1, 0, self._map), bytes(8)]
        for register, offset in ((bpf.R2, _KEY), (bpf.R3, -_SIZE)):
            parts += [bpf.copy(register, bpf.STACK), bpf.add(register, offset)]
        parts += [bpf.number(bpf.R4, 0), bpf.call(_UPDATE), *bpf.answer(bpf.PASS)]
        return b"".join(parts)


@contextmanager
def dressed(ifindex: int) -> Iterator[None]:
    """Have each packet that comes in there carry QUEUE, PRIORITY and HASH."""
    parts = [bpf.copy(bpf.CONTEXT, bpf.R1)]
    for offset, value in ((_QUEUE_MAPPING, QUEUE), (_PRIORITY, PRIORITY)):
        parts += [bpf.number(bpf.R2, value), bpf.store(bpf.CONTEXT, offset, bpf.R2)]
    parts += [bpf.copy(bpf.R1, bpf.CONTEXT), bpf.number(bpf.R2, HASH), bpf.call(bpf.SET_HASH)]
    program = loose.prog_load(b"".join((*parts, *bpf.answer(bpf.PASS))))
    try:
        with linked(program, ifindex, TcxHook.INGRESS):
            yield
    finally:
        os.close(program)


@contextmanager
def linked(program: int, ifindex: int, hook: TcxHook) -> Iterator[None]:
    """Have a program there, in the calling thread's namespace."""
    link = syscall.link_create(program, ifindex, hook)
    try:
        yield
    finally:
        os.close(link)


def _keep(number: int) -> bytes:
    """Put R0 down as the field of this number."""
    return _instruction(_STORE, bpf.STACK, bpf.R0, 8 * number - _SIZE)


def _instruction(code: int, register: int, source: int, offset: int, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | register, offset, value)
