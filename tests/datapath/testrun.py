# SPDX-License-Identifier: Apache-2.0
"""BPF_PROG_TEST_RUN: one packet through one program, in the calling thread's namespace.

The kernel makes an skb of the bytes, derives packet type and protocol from its Ethernet header as
for a received frame, runs the program once and gives the bytes back. A redirect is only an answer
here: nothing is sent. Of the context it takes mark, priority, interface and gso_size (never a GSO
type).
The stamp goes by way of stamper.py.
It refuses frames that hold less than their own IP header (net/bpf/test_run.c).
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from stamper import Stamper

from vxlane.datapath import syscall

_PROG_TEST_RUN = 10
# The buffer that the kernel makes is a page, less the skb's headroom and struct skb_shared_info.
LONGEST, ROOM = 3600, 4096


class Action(IntEnum):
    """Of linux/pkt_cls.h."""

    UNSPEC = -1
    OK = 0
    SHOT = 2
    REDIRECT = 7


class _Attr(ctypes.Structure):
    """The part of union bpf_attr that BPF_PROG_TEST_RUN reads and writes."""

    _fields_ = (
        ("program", ctypes.c_uint32),
        ("action", ctypes.c_int32),
        ("size_in", ctypes.c_uint32),
        ("size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("context_size_in", ctypes.c_uint32),
        ("context_size_out", ctypes.c_uint32),
        ("context_in", ctypes.c_uint64),
        ("context_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class _Context(ctypes.Structure):
    """struct __sk_buff; the fields between those named must be zero."""

    _fields_ = (
        ("_1", ctypes.c_uint32 * 2),
        ("mark", ctypes.c_uint32),
        ("_2", ctypes.c_uint32 * 5),
        ("priority", ctypes.c_uint32),
        ("_3", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("_4", ctypes.c_uint32),
        ("stamp", ctypes.c_uint32),  # cb[0]
        ("_5", ctypes.c_uint32 * 31),
        ("gso_size", ctypes.c_uint32),
        ("_6", ctypes.c_uint32 * 3),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an skb carries beside its bytes."""

    ifindex: int
    mark: int = 0
    priority: int = 0
    gso_size: int = 0
    stamp: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What the program answered, and frame and mark as it left them."""

    action: Action
    frame: bytes
    mark: int


class Runner:
    """One program, ready to be run; all buffers are made once."""

    def __init__(self, pin: Path) -> None:
        program = syscall.obj_get(pin)
        self._stamper = Stamper(program)
        os.close(program)
        self._in = ctypes.create_string_buffer(ROOM)
        self._out = ctypes.create_string_buffer(ROOM)
        self._context, self._context_out = _Context(), _Context()
        self._attr = _Attr(
            program=self._stamper.descriptor,
            data_in=ctypes.addressof(self._in),
            data_out=ctypes.addressof(self._out),
            repeat=1,
            context_size_in=ctypes.sizeof(_Context),
            context_in=ctypes.addressof(self._context),
            context_out=ctypes.addressof(self._context_out),
        )
        self._number = syscall._NR_BPF[os.uname().machine]

    def run(self, frame: bytes, context: Context) -> Result:
        """Run once."""
        self._context.mark = context.mark
        self._context.priority = context.priority
        self._context.ifindex = context.ifindex
        self._context.gso_size = context.gso_size
        self._context.stamp = context.stamp
        ctypes.memmove(self._in, frame, len(frame))
        self._attr.size_in = len(frame)
        self._attr.size_out = ROOM
        self._attr.context_size_out = ctypes.sizeof(_Context)
        attr = ctypes.byref(self._attr)
        if syscall._libc.syscall(self._number, _PROG_TEST_RUN, attr, ctypes.sizeof(_Attr)):
            number = ctypes.get_errno()
            raise OSError(number, f"test run of {len(frame)} bytes: {os.strerror(number)}")
        frame = ctypes.string_at(self._out, self._attr.size_out)
        return Result(Action(self._attr.action), frame, self._context_out.mark)

    def close(self) -> None:
        """Let go of the program."""
        self._stamper.close()
