# SPDX-License-Identifier: Apache-2.0
"""Small TC programs by hand: struct bpf_insn of linux/bpf.h, without a compiler.

So a probe works where bcc or the kernel's headers are missing, and starts no LLVM. Pure.
"""

from __future__ import annotations

import struct

_INSTRUCTION = struct.Struct("=BBhi")  # code, source << 4 | destination, offset, immediate

R0, R1, R2, R3, R4, R5, CONTEXT, STACK = 0, 1, 2, 3, 4, 5, 6, 10
"""Registers; `CONTEXT` is where a program keeps its skb over calls."""

TC_INDEX = 44
"""Its offset in struct __sk_buff."""

PASS, DROP = -1, 2
"""TC_ACT_UNSPEC and TC_ACT_SHOT. TC_ACT_OK would overwrite tc_index (net/core/dev.c)."""

STORE_BYTES, GET_TUNNEL_KEY, SET_TUNNEL_KEY, REDIRECT_TO, ADJUST_ROOM = 9, 20, 21, 23, 50
LOAD_BYTES, SET_HASH = 26, 48
REDIRECT_NEIGH, REDIRECT_PEER, COARSE_CLOCK = 152, 155, 160
"""BPF_FUNC_*."""

Instruction = bytes


def number(register: int, value: int) -> Instruction:
    """Let register = value."""
    return _INSTRUCTION.pack(0xB7, register, 0, value)


def large(register: int, value: int) -> Instruction:
    """Let register = a value of 64 bits."""
    low, high = value & 0xFFFFFFFF, value >> 32
    parts = struct.unpack("=ii", struct.pack("=II", low, high))
    return _INSTRUCTION.pack(0x18, register, 0, parts[0]) + _INSTRUCTION.pack(0, 0, 0, parts[1])


def copy(register: int, source: int) -> Instruction:
    """Let register = source."""
    return _INSTRUCTION.pack(0xBF, source << 4 | register, 0, 0)


def add(register: int, value: int) -> Instruction:
    """Let register += value."""
    return _INSTRUCTION.pack(0x07, register, 0, value)


def load(register: int, base: int, offset: int) -> Instruction:
    """Let register = *(u32 *)(base + offset)."""
    return _INSTRUCTION.pack(0x61, base << 4 | register, offset, 0)


def store(base: int, offset: int, register: int) -> Instruction:
    """Let *(u32 *)(base + offset) = register."""
    return _INSTRUCTION.pack(0x63, register << 4 | base, offset, 0)


def unless(register: int, value: int, skipped: int) -> Instruction:
    """Skip so many instructions unless register == value."""
    return _INSTRUCTION.pack(0x55, register, skipped, value)


def call(function: int) -> Instruction:
    """Let R0 = function(R1, R2 ...)."""
    return _INSTRUCTION.pack(0x85, 0, 0, function)


def end() -> Instruction:
    """Return R0."""
    return _INSTRUCTION.pack(0x95, 0, 0, 0)


def answer(action: int) -> tuple[Instruction, ...]:
    """Return `action`."""
    return number(R0, action), end()


def fill_stack(words: tuple[int, ...]) -> tuple[Instruction, ...]:
    """Put 32-bit words at the end of the stack; the first is at STACK - 4 * len(words)."""
    first = -4 * len(words)
    return tuple(
        instruction
        for place, word in enumerate(words)
        for instruction in (number(R0, word), store(STACK, first + 4 * place, R0))
    )
