# SPDX-License-Identifier: Apache-2.0
"""The programs' maps in memory: `Maps` itself, on what bpf(2) would do with dicts.

For tests of what is put into the maps. What the kernel does with them is tested in datapath/.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator

import pytest

from vxlane.datapath import maps
from vxlane.datapath.batches import Page
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import SHAPES
from vxlane.datapath.syscall import MapShape
from vxlane.errors import KernelError

CPUS = 2
_NUMBERS = {name: number for number, name in enumerate(SHAPES)}
_ARRAYS = {"settings", "counters", "peer_counters"}


class Bpf:
    """Stands in for `syscall` and `batches`; a descriptor is a map's number in `SHAPES`."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[bytes, bytes]] = {name: {} for name in SHAPES}
        self.capacity = dict.fromkeys(SHAPES, 64)
        self.gone: set[int] = set()
        """Ifindexes of devices that there are not."""
        self.writes: list[tuple[str, str]] = []
        """What was done, in order: ("put", map) or ("delete", map)."""

    def possible_cpus(self) -> int:
        """See `syscall`."""
        return CPUS

    def map_shape(self, fd: int) -> MapShape:
        """See `syscall`."""
        name = _name(fd)
        key, value = (ctypes.sizeof(kind) for kind in SHAPES[name])
        return MapShape(key, value, self.capacity[name])

    def map_lookup(self, fd: int, key: bytes, size: int) -> bytes | None:
        """See `syscall`. A trie answers with the longest match; an array has every entry."""
        name = _name(fd)
        held = self.entries[name]
        if name == "peers":
            matches = [known for known in held if _covers(known, key)]
            return held[max(matches, key=_length)] if matches else None
        return held.get(key, bytes(size) if name in _ARRAYS else None)

    def map_update(self, fd: int, key: bytes, value: bytes) -> None:
        """See `syscall`."""
        name = _name(fd)
        if key not in self.entries[name] and len(self.entries[name]) == self.capacity[name]:
            raise KernelError("write a map entry", errno.E2BIG, "it is full")
        self.entries[name][key] = value
        self.writes.append(("put", name))

    def devmap_put(self, fd: int, ifindex: int) -> None:
        """See `syscall`."""
        if ifindex in self.gone:
            raise KernelError(f"note interface {ifindex}", errno.EINVAL)
        self.map_update(fd, struct.pack("=I", ifindex), struct.pack("=I", ifindex))

    def map_delete(self, fd: int, key: bytes) -> bool:
        """See `syscall`."""
        self.writes.append(("delete", _name(fd)))
        return self.entries[_name(fd)].pop(key, None) is not None

    def map_entries(self, fd: int, *_: int) -> Iterator[tuple[bytes, bytes]]:
        """See `batches`."""
        return iter(list(self.entries[_name(fd)].items()))

    def map_pages(self, fd: int, *_: int) -> Iterator[Page]:
        """See `batches`. All on one page."""
        held = self.entries[_name(fd)]
        yield Page(len(held), b"".join(held), b"".join(held.values()), 0, is_last=True)

    def map_count(self, fd: int, _: int) -> int:
        """See `syscall`."""
        return len(self.entries[_name(fd)])

    def map_take(self, fd: int, *_: int) -> Iterator[tuple[bytes, bytes]]:
        """See `batches`."""
        taken, self.entries[_name(fd)] = self.entries[_name(fd)], {}
        return iter(taken.items())


def in_memory(monkeypatch: pytest.MonkeyPatch) -> tuple[Maps, Bpf]:
    """Empty maps, and what is behind them."""
    bpf = Bpf()
    monkeypatch.setattr(maps, "syscall", bpf)
    monkeypatch.setattr(maps, "batches", bpf)
    return Maps(dict(_NUMBERS)), bpf


def _name(fd: int) -> str:
    return list(SHAPES)[fd]


def _length(cidr: bytes) -> int:
    return int.from_bytes(cidr[:4], "little" if struct.pack("=H", 1)[0] else "big")


def _covers(known: bytes, key: bytes) -> bool:
    length = _length(known)
    network, address = (int.from_bytes(raw[4:], "big") for raw in (known, key))
    return length <= _length(key) and network >> 128 - length == address >> 128 - length
