# SPDX-License-Identifier: Apache-2.0
"""bpf(2) by hand: what the long-lived agent needs without bcc.

Owns the system call's argument layouts (union bpf_attr in include/uapi/linux/bpf.h). Knows file
descriptors and bytes, nothing of what they mean. Imports only the errors.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from vxlane.errors import KernelError

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_libc = ctypes.CDLL(None, use_errno=True)

_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY = 1, 2, 3, 4
_OBJ_PIN, _OBJ_GET, _OBJ_INFO = 6, 7, 15
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH, _PROG_QUERY = 28, 29, 34, 16

_TCX_MOST = 64  # BPF_MPROG_MAX
ATTR_SIZE = 128
"""Bytes; no command knows a longer union bpf_attr."""


class TcxHook(IntEnum):
    """Attach types of TCX, Linux 6.6."""

    INGRESS = 46
    EGRESS = 47


@dataclass(frozen=True, slots=True)
class MapShape:
    """Sizes in bytes; of a per-CPU map the value of one CPU."""

    key: int
    value: int
    max_entries: int


def _bpf(command: int, attr: bytes) -> tuple[int, bytes]:
    """Run a command; answers its result and the attr as the kernel left it."""
    buffer = ctypes.create_string_buffer(attr, ATTR_SIZE)
    return call(command, buffer), buffer.raw


def call(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """Run a command; the kernel writes into `attr`. Raises OSError."""
    result: int = _libc.syscall(_NR_BPF[platform.machine()], command, attr, len(attr))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


@contextmanager
def explained(operation: str, advice: str = "") -> Iterator[None]:
    """Raise an OSError of the block as a KernelError that names `operation`."""
    try:
        yield
    except OSError as error:
        raise KernelError(operation, error.errno or 0, advice) from error


def obj_get(path: Path) -> int:
    """Open a pinned object; raises FileNotFoundError where there is no pin."""
    name = ctypes.create_string_buffer(str(path).encode())
    try:
        return _bpf(_OBJ_GET, struct.pack("=QII", _address(name), 0, 0))[0]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KernelError(f"open pin {path}", error.errno or 0) from error


def obj_pin(fd: int, path: Path) -> None:
    """Pin where nothing is pinned yet."""
    name = ctypes.create_string_buffer(str(path).encode())
    with explained(f"pin {path}"):
        _bpf(_OBJ_PIN, struct.pack("=QII", _address(name), fd, 0))


def obj_replace(fd: int, path: Path) -> None:
    """Pin in place of what is pinned there, if anything, in one step."""
    new = path.with_name(f"new-{path.name}")
    new.unlink(missing_ok=True)
    obj_pin(fd, new)
    new.rename(path)


def map_shape(fd: int) -> MapShape:
    """Ask the kernel for a map's sizes (struct bpf_map_info)."""
    _, _, key, value, entries = struct.unpack_from("=IIIII", object_info(fd, 80))
    return MapShape(key, value, entries)


def object_id(fd: int) -> int:
    """The kernel's id of a map or program: both infos begin with their type and it."""
    return int(struct.unpack_from("=II", object_info(fd, 80))[1])


def object_info(fd: int, size: int) -> bytes:
    """What the kernel tells of a map, program or link: the first `size` bytes of its info struct.

    An older kernel, whose struct is shorter, leaves zeros behind it.
    """
    info = ctypes.create_string_buffer(size)
    with explained("ask for a map, program or link"):
        _bpf(_OBJ_INFO, struct.pack("=IIQ", fd, size, _address(info)))
    return info.raw


def map_lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """The value, `size` bytes (of a per-CPU map: all CPUs'), or None."""
    held, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    try:
        _bpf(_MAP_LOOKUP, struct.pack("=IIQQQ", fd, 0, _address(held), _address(value), 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KernelError("read a map entry", error.errno or 0) from error
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Set an entry; raises KernelError, with E2BIG or ENOSPC where the map is full."""
    with explained("write a map entry", "a full map takes no more; raise its size"):
        _update(fd, key, value)


def devmap_put(fd: int, ifindex: int) -> None:
    """Set a device under its ifindex; raises KernelError, with EINVAL where there is none such."""
    with explained(f"note interface {ifindex}"):
        _update(fd, struct.pack("=I", ifindex), struct.pack("=I", ifindex))


def _update(fd: int, key: bytes, value: bytes) -> None:
    held = ctypes.create_string_buffer(key, len(key))
    data = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("=IIQQQ", fd, 0, _address(held), _address(data), 0))


def map_delete(fd: int, key: bytes) -> bool:
    """Delete an entry; whether there was one."""
    held = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(_MAP_DELETE, struct.pack("=IIQ", fd, 0, _address(held)))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError("delete a map entry", error.errno or 0) from error
    return True


def map_count(fd: int, key: int) -> int:
    """How many entries a small map has, of a kind that can't be read in batches (a devmap)."""
    following = ctypes.create_string_buffer(key)
    start, count = 0, 0
    with explained("count a map's entries"):
        while True:
            request = struct.pack("=IIQQQ", fd, 0, start, _address(following), 0)
            try:
                _bpf(_MAP_NEXT_KEY, request)
            except FileNotFoundError:
                return count
            start, count = _address(following), count + 1


def link_create(program: int, ifindex: int, hook: TcxHook) -> int:
    """Attach by TCX, behind what is there; raises OSError (EINVAL where the kernel has no TCX)."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII", program, ifindex, hook, 0))[0]


def link_update(link: int, program: int) -> None:
    """Replace a link's program; no packet meets the hook without one."""
    with explained("replace an attached program"):
        _bpf(_LINK_UPDATE, struct.pack("=III", link, program, 0))


def link_detach(pin: Path) -> None:
    """Detach a pinned link at once: without its pin alone it goes some time later."""
    link = obj_get(pin)
    try:
        with explained(f"detach {pin}"):
            _bpf(_LINK_DETACH, struct.pack("=I", link))
    finally:
        os.close(link)


def link_ifindex(pin: Path) -> int:
    """The device of a pinned TCX link; 0 once the device is gone, or where there is no pin."""
    return _link_field(pin, 16)


def link_program(pin: Path) -> int:
    """The ID of the program of a pinned link; 0 where there is no pin."""
    return _link_field(pin, 8)


def _link_field(pin: Path, offset: int) -> int:
    """A u32 of struct bpf_link_info."""
    try:
        link = obj_get(pin)
    except FileNotFoundError:
        return 0
    try:
        return int(struct.unpack_from("=I", object_info(link, 64), offset)[0])
    finally:
        os.close(link)


def tcx_programs(ifindex: int, hook: TcxHook) -> list[int]:
    """The IDs of a device's TCX programs, in the order they run; none where there is no TCX."""
    return [program for program, _ in tcx_links(ifindex, hook)]


def tcx_links(ifindex: int, hook: TcxHook) -> list[tuple[int, int]]:
    """The same with the ID of the link that holds each; 0 where none does."""
    ids = [(ctypes.c_uint32 * _TCX_MOST)() for _ in range(2)]
    programs, links = map(ctypes.addressof, ids)
    query = struct.pack("=IIIIQIxxxxQQ", ifindex, hook, 0, 0, programs, _TCX_MOST, 0, links)
    try:
        attr = _bpf(_PROG_QUERY, query)[1]
    except OSError:
        return []
    return list(zip(*ids, strict=True))[: struct.unpack_from("=I", attr, 24)[0]]


@functools.cache
def has_tcx() -> bool:
    """Does the kernel know TCX? Asked of lo, which every namespace has as interface 1."""
    try:
        _bpf(_PROG_QUERY, struct.pack("=IIIIQI", 1, TcxHook.INGRESS, 0, 0, 0, 0))
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


def possible_cpus() -> int:
    """How many values a per-CPU map holds per key (Documentation/admin-guide/cputopology)."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    last = text.strip().split(",")[-1].split("-")[-1]
    return int(last) + 1
