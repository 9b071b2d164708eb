# SPDX-License-Identifier: Apache-2.0
"""Reads iptables-legacy's tables from the kernel.

There are no events about changes, so the tables are compared with the last ones, without counters.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from pathlib import Path

from vxlane.errors import KernelError
from vxlane.mechanisms.legacy import INFO, LegacyTable, table, without_counters
from vxlane.mechanisms.rules import Base, ChainKey, Rule

# The tables in use in this thread's network namespace. To ask for another one would make it.
_TABLES = Path("/proc/thread-self/net/ip_tables_names")
_GET_INFO, _GET_ENTRIES = 64, 65
_HEADER = 40  # struct ipt_get_entries: name, size, padding
_libc = ctypes.CDLL(None, use_errno=True)


class LegacyReader:
    """The tables of this thread's network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._blocks: dict[str, bytes] = {}
        self._tables: dict[str, LegacyTable] = {}

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def refresh(self) -> bool:
        """Read the tables. True: some rule has changed."""
        blocks, tables = dict[str, bytes](), dict[str, LegacyTable]()
        for name in _names():
            info = self._get(_GET_INFO, name, INFO.size, b"")
            if name == "nat":
                continue  # sees a connection's first packet only
            size = INFO.unpack(info)[-1]
            wanted = size.to_bytes(4, sys.byteorder)
            block = self._get(_GET_ENTRIES, name, _HEADER + size, wanted)[_HEADER:]
            blocks[name] = without_counters(block)
            is_known = blocks[name] == self._blocks.get(name)
            tables[name] = self._tables[name] if is_known else table(info, block)
        has_changed = blocks != self._blocks
        # Both or neither: a table that could not be read is a change the next time, too.
        self._blocks, self._tables = blocks, tables
        return has_changed

    @property
    def is_used(self) -> bool:
        """Whether there are any tables, also if only the one for NAT."""
        return bool(_names())

    def bases(self) -> tuple[Base, ...]:
        """The chains that the kernel calls."""
        return tuple(base for found in self._tables.values() for base in found.bases)

    def rules(self, key: ChainKey) -> tuple[Rule, ...]:
        """The rules of one chain."""
        return self._tables[key.table].rules.get(key, ())

    def _get(self, option: int, name: str, size: int, more: bytes) -> bytes:
        """A getsockopt(2) that reads its buffer. Python's own passes no content in."""
        question = name.encode().ljust(32, b"\0") + more
        buffer = ctypes.create_string_buffer(question, size)
        length = ctypes.c_uint32(size)
        descriptor = self._socket.fileno()
        if _libc.getsockopt(descriptor, 0, option, buffer, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise KernelError(f"read table {name} of iptables-legacy", number)
        return buffer.raw


def _names() -> list[str]:
    try:
        return _TABLES.read_text().split()
    except OSError:
        return []
