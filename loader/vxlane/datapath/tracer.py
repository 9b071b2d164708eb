# SPDX-License-Identifier: Apache-2.0
"""The tracer (bpf/trace.c): loaded, put in its place beside the programs, and taken away again.

The place is a pinned map, so what stands there outlives whoever put it there. Three things bound
what a killed one leaves behind:

- the tracer tells nothing once its lease is over, `LEASE` after the last renewal;
- the lock of a file in the state directory says whether somebody looks. The agent looks once a
  second, and empties a place whose lock is free;
- the next one that looks puts its own tracer in the place.
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
    """The tracer, loaded and in no place yet."""

    def __init__(self, state: Path, buffer: int) -> None:
        """`buffer`: bytes for events that were not read yet, a power of two of 4096 at least.

        Raises CompileError, and VxlaneError where no programs are loaded.
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
        """Tell of packets that are as `wanted`, a struct trace_filter, says, for `LEASE`."""
        wanted.until = time.monotonic_ns() + int(LEASE * 1e9)
        wanted.wake = self._buffer // 4
        syscall.map_update(self._filter, bytes(4), bytes(wanted))

    def lost(self) -> int:
        """How many packets found no room in the buffer."""
        raw = syscall.map_lookup(self._lost, bytes(4), 8) or bytes(8)
        return int(ctypes.c_uint64.from_buffer_copy(raw).value)

    def close(self) -> None:
        """Let go of it; the kernel frees it when it stands in no place either."""
        self.ring.close()
        while self._fds:
            os.close(self._fds.pop())


def new_filter() -> Any:
    """A struct trace_filter that wants every packet and captures nothing."""
    return HEADER.structs["trace_filter"](verdicts=(1 << 64) - 1)


@contextlib.contextmanager
def in_place(maps: Maps, tracer: Tracer) -> Iterator[None]:
    """Show packets to `tracer` meanwhile; the caller is the `sole_looker`."""
    maps.put_tracer(tracer.program)
    try:
        yield
    finally:
        maps.delete_tracer()


@contextlib.contextmanager
def sole_looker(state: Path) -> Iterator[None]:
    """Hold the lock. VxlaneError: somebody else looks at this node's packets."""
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
    """Empty the place of a tracer whose owner was killed; whether there was one."""
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
