# SPDX-License-Identifier: Apache-2.0
"""Reads a BPF ring buffer (Linux 5.8) through memory that is shared with the kernel.

The layout is that of kernel/bpf/ringbuf.c: a page with the reader's position, a page with the
writers' position, and the records. The records are mapped twice in a row, so that none is in two
pieces. Each follows an 8-byte header, whose first four bytes are its length and two flags. Imports
syscall only.
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
    """The reader of a ring buffer. A ring buffer may have only one."""

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
        """Unmap the memory. The caller still owns the descriptor."""
        self._reader.close()
        self._writers.close()

    def read(self) -> Iterator[bytes]:
        """The waiting records, oldest first. The room of each is freed when the next is read."""
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
