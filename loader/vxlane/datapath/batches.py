# SPDX-License-Identifier: Apache-2.0
"""Reads maps in batches (BPF_MAP_LOOKUP_BATCH, Linux 5.6).

Without batches each entry takes two system calls, and the iteration starts again if an LRU evicts
its current key. Knows file descriptors and bytes, as `syscall` does.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from vxlane.datapath import syscall

_LOOKUP_BATCH, _TAKE_BATCH = 24, 25
_AT_A_TIME = 4096
"""Entries per system call."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, as one system call reads them: keys and values, each back to back."""

    count: int
    keys: bytes
    values: bytes
    next_bucket: int
    """Of a hash: where the following page begins (`batch` of __htab_map_lookup_and_delete_batch()
    in kernel/bpf/hashtab.c)."""
    is_last: bool


def map_entries(fd: int, key: int, value: int) -> Iterator[tuple[bytes, bytes]]:
    """All entries of a hash or trie. Sizes are in bytes. Changes during the read may be missed."""
    return _entries(map_pages(fd, key, value), key, value)


def map_take(fd: int, key: int, value: int) -> Iterator[tuple[bytes, bytes]]:
    """All entries of a hash, each deleted as it is read."""
    return _entries(_pages(_TAKE_BATCH, fd, key, value), key, value)


def map_pages(fd: int, key: int, value: int) -> Iterator[Page]:
    """As `map_entries`, but some thousands at a time, for callers that need only a few fields."""
    return _pages(_LOOKUP_BATCH, fd, key, value)


def _pages(command: int, fd: int, key: int, value: int) -> Iterator[Page]:
    keys = ctypes.create_string_buffer(_AT_A_TIME * key)
    values = ctypes.create_string_buffer(_AT_A_TIME * value)
    position = ctypes.create_string_buffer(max(key, 4))  # of a trie a key, of a hash a bucket
    places = [ctypes.addressof(buffer) for buffer in (position, keys, values)]
    start, is_last = 0, False
    while not is_last:
        request = struct.pack("=QQQQIIQQ", start, *places, _AT_A_TIME, fd, 0, 0)
        attr = ctypes.create_string_buffer(request, syscall.ATTR_SIZE)
        with syscall.explained("read a map's entries"):
            try:
                syscall.call(command, attr)
            except FileNotFoundError:
                is_last = True  # ENOENT: that was the last batch
        found = struct.unpack_from("=I", attr.raw, 32)[0]
        yield Page(
            found,
            ctypes.string_at(keys, found * key),
            ctypes.string_at(values, found * value),
            struct.unpack_from("=I", position)[0],
            is_last,
        )
        start = places[0]


def _entries(pages: Iterator[Page], key: int, value: int) -> Iterator[tuple[bytes, bytes]]:
    for page in pages:
        yield from zip(cut(page.keys, key), cut(page.values, value), strict=True)


def cut(raw: bytes, size: int) -> Iterator[bytes]:
    """Keys or values that lie back to back, one by one."""
    return (raw[at : at + size] for at in range(0, len(raw), size))
