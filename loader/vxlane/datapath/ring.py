# SPDX-License-Identifier: Apache-2.0
"""A ring buffer of BPF (Linux 5.8), read by memory that is shared with the kernel.

The layout is that of kernel/bpf/ringbuf.c: a page with the reader's position, a page with the
writers', and the records, which are mapped twice in a row, so that none is in two pieces. Each is
behind 8 bytes, of which the first four are its length and two flags. Imports syscall only.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from vxlane.datapath import syscall

_HEADER = 8
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_LENGTH = _DISCARDED - 1
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


class Ring:
    """The reader of one ring buffer, of which there may be one only."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        size, page = syscall.map_shape(descriptor).max_entries, mmap.PAGESIZE
        self._mask, self._data = size - 1, page
        self._reader = mmap.mmap(descriptor, page)
        self._writers = mmap.mmap(descriptor, page + 2 * size, prot=mmap.PROT_READ, offset=page)

    def fileno(self) -> int:
        """For poll(2): readable when there are records."""
        return self._fd

    def close(self) -> None:
        """Let go of the memory; the descriptor stays its owner's."""
        self._reader.close()
        self._writers.close()

    def read(self) -> Iterator[bytes]:
        """The records that are there, oldest first; each makes room when the next is asked for."""
        at = _U64.unpack_from(self._reader)[0]
        while at < _U64.unpack_from(self._writers)[0]:
            start = self._data + (at & self._mask)
            header = _U32.unpack_from(self._writers, start)[0]
            if header & _BUSY:
                return
            length = header & _LENGTH
            if not header & _DISCARDED:
                yield self._writers[start + _HEADER : start + _HEADER + length]
            at += -(-(length + _HEADER) // 8) * 8
            _U64.pack_into(self._reader, 0, at)
