# SPDX-License-Identifier: Apache-2.0
"""Stamper: gives a test run's skb the stamp that a packet carries through the kernel path.

BPF_PROG_TEST_RUN takes cb of the context, not tc_index. So a program of six instructions copies
the one to the other and tail-calls the program under test, which runs in its place.
"""

from __future__ import annotations

import os
import struct

from vxlane.datapath import loose, syscall

_MAP_CREATE, _PROG_ARRAY = 0, 3
_TAIL_CALL = 12
_TC_INDEX, _CB = 44, 48  # offsets in struct __sk_buff
_FAILED = 99


class Stamper:
    """Stamps, and then is `program`; `descriptor` is what to run."""

    def __init__(self, program: int) -> None:
        attr = struct.pack("=IIIII", _PROG_ARRAY, 4, 4, 1, 0)
        # The kernel empties such an array when its last descriptor is closed, used or not.
        self._array, _ = syscall._bpf(_MAP_CREATE, attr)
        syscall.map_update(self._array, bytes(4), struct.pack("=I", program))
        self.descriptor = loose.prog_load(_instructions(self._array))

    def close(self) -> None:
        """Let go of both."""
        os.close(self.descriptor)
        os.close(self._array)


def _instructions(array: int) -> bytes:
    """Of linux/bpf.h: code, registers (source << 4 | destination), offset, immediate."""
    return b"".join(
        struct.pack("=BBhi", *one)
        for one in (
            (0x61, 0x12, _CB, 0),  # r2 = skb->cb[0]
            (0x63, 0x21, _TC_INDEX, 0),  # skb->tc_index = r2
            (0x18, 0x12, 0, array),  # r2 = the array, BPF_PSEUDO_MAP_FD
            (0, 0, 0, 0),
            (0xB7, 0x03, 0, 0),  # r3 = 0
            (0x85, 0, 0, _TAIL_CALL),
            (0xB7, 0x00, 0, _FAILED),
            (0x95, 0, 0, 0),
        )
    )
