# SPDX-License-Identifier: Apache-2.0
"""Which neighbour events a socket gets: IPv4 neighbours, and FDB entries that are a device's own.

A bridge tells of each MAC that it learns, and a pod can send from a new one with each frame:
79,000 events a second took the agent 60 % of a CPU. The kernel drops them for a socket that
has a filter (classic BPF, Documentation/networking/filter.rst). An FDB entry of a VXLAN device has
NTF_SELF, one of a bridge has not. Events of all other kinds pass.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

from vxlane.netlink import rtnetlink as rt

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_TYPE, _FAMILY, _FLAGS = 4, 16, 26
"""Offsets of nlmsghdr.nlmsg_type, ndmsg.ndm_family and ndmsg.ndm_flags."""
_LOAD_HALF, _LOAD_BYTE, _IF_EQUAL, _IF_SET, _RETURN = 0x28, 0x30, 0x15, 0x45, 0x06
_INSTRUCTION = struct.Struct("=HBBI")  # sock_filter: code, jumps if true and if false, constant
_ALL = 0xFFFFFFFF
"""Bytes of a message that are kept."""


def _loaded(kind: int) -> int:
    """A message type as the filter loads it: in network byte order."""
    return int.from_bytes(kind.to_bytes(2, sys.byteorder), "big")


# Jumps are counted from the next instruction.
_PROGRAM = (
    (_LOAD_HALF, 0, 0, _TYPE),
    (_IF_EQUAL, 1, 0, _loaded(rt.RTM_NEWNEIGH)),
    (_IF_EQUAL, 0, 6, _loaded(rt.RTM_DELNEIGH)),
    (_LOAD_BYTE, 0, 0, _FAMILY),
    (_IF_EQUAL, 4, 0, socket.AF_INET),
    (_IF_EQUAL, 0, 2, socket.AF_BRIDGE),
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_IF_SET, 1, 0, rt.NTF_SELF),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _ALL),
)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def hear_own_entries_only(netlink: socket.socket) -> None:
    """Have the kernel drop for `netlink` what bridges learn. OSError: it takes no filter."""
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in _PROGRAM)
    program = _Program(len(_PROGRAM), code)
    netlink.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
