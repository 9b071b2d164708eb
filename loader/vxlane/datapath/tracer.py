# SPDX-License-Identifier: Apache-2.0
"""Loads the tracer (bpf/trace.c), puts it in its place beside the programs, and removes it again.

The place is a pinned map, so the tracer outlives the process that put it there. Three things limit
what a killed process leaves behind:

- the tracer reports nothing when its lease has run out, `LEASE` after the last renewal;
- a process that traces holds the lock of a file in the state directory. Once a second the agent
  removes a tracer whose lock is free;
- the next process that traces replaces the tracer by its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vxlane.datapath import compiler, load, syscall
from vxlane.datapath.abi import HEADER
from vxlane.datapath.compiled import RING_BYTES
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import loaded_constants
from vxlane.datapath.ring import Ring
from vxlane.datapath.source import Part
from vxlane.errors import VxlaneError

LEASE = 2.0
"""Seconds."""
_LOCK = "tracer.lock"
_PATIENCE = 0.5
"""Seconds to wait for the lock: the agent holds it while it empties the place."""
_MAPS = ("filter", "lost", "events")


class Tracer:
    """The tracer, loaded but not in its place yet."""

    def __init__(self, state: Path, buffer: int) -> None:
        """`buffer`: bytes for unread events, a power of two and at least 4096.

        CompileError: it can't be compiled or loaded. VxlaneError: no programs are loaded.
        """
        constants = loaded_constants(state)
        if not constants:
            raise VxlaneError(
                f"{state} does not say what its programs were loaded with; start the agent again"
            )
        self._buffer = buffer
        log_file = state / "compile-trace.log"
        terms = constants.terms()
        terms = replace(terms, sizes={**terms.sizes, RING_BYTES: buffer})
        compiled = compiler.obtain(Part.TRACER, log_file)
        self.program, maps = load.loose(compiled, _MAPS, terms, log_file)
        self._fds = [self.program, *maps]
        self._filter, self._lost, events = maps
        self.ring = Ring(events)

    def ask(self, wanted: Any) -> None:
        """Report packets that match `wanted` (a struct trace_filter) for `LEASE` seconds."""
        wanted.until = time.monotonic_ns() + int(LEASE * 1e9)
        wanted.wake = self._buffer // 4
        syscall.map_update(self._filter, bytes(4), bytes(wanted))

    def lost(self) -> int:
        """How many packets found no room in the buffer."""
        raw = syscall.map_lookup(self._lost, bytes(4), 8) or bytes(8)
        return int(ctypes.c_uint64.from_buffer_copy(raw).value)

    def close(self) -> None:
        """Close it. The kernel frees it when it is not in its place either."""
        self.ring.close()
        while self._fds:
            os.close(self._fds.pop())


def new_filter() -> Any:
    """A struct trace_filter that wants every packet and captures nothing."""
    return HEADER.structs["trace_filter"](verdicts=(1 << 64) - 1)


@contextlib.contextmanager
def in_place(maps: Maps, tracer: Tracer) -> Iterator[None]:
    """Call `tracer` for every packet within the block. The caller must be the `sole_looker`."""
    maps.put_tracer(tracer.program)
    try:
        yield
    finally:
        maps.delete_tracer()


@contextlib.contextmanager
def sole_looker(state: Path) -> Iterator[None]:
    """Hold the lock within the block. VxlaneError: another process traces this node's packets."""
    descriptor = _open_lock(state)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _take(descriptor):
            if time.monotonic() > deadline:
                pid = os.pread(descriptor, 16, 0).decode() or "unknown"
                raise VxlaneError(
                    f"process {pid} looks at this node's packets already; end it, or wait for it"
                )
            time.sleep(0.01)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(state: Path, maps: Maps) -> bool:
    """Remove a tracer whose process was killed. True: there was one."""
    if not maps.has_tracer():
        return False
    descriptor = _open_lock(state)
    try:
        # Once more: whoever had the lock a moment ago may have ended well.
        is_abandoned = _take(descriptor) and maps.has_tracer()
        if is_abandoned:
            maps.delete_tracer()
        return is_abandoned
    finally:
        os.close(descriptor)


def _open_lock(state: Path) -> int:
    try:
        return os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VxlaneError(f"make {state / _LOCK}: {error.strerror}") from None


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
