# SPDX-License-Identifier: Apache-2.0
"""One look at this node's packets, from the tracer's loading to the last event.

A thread of its own renews the tracer's lease, so that a reader whose output is stuck loses events
by number and not unseen.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.tracer import LEASE, Tracer, in_place, sole_looker
from vxlane.trace.event import Event

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own is 3.11's

_RENEW_EVERY = 0.5
_STEP = 1_000_000
"""Ns. What differs less was read at another moment. A clock that is slewed takes both along."""
_READ_EVERY = 0.05
"""Seconds. Read at once, 1,400 events a second took an eighth of a CPU in wake-ups."""


class Session:
    """Events while `with` stands open."""

    def __init__(self, state: Path, maps: Maps, wanted: Any, buffer: int) -> None:
        """`wanted`: a struct trace_filter; `buffer` as of `Tracer`."""
        self._state, self._maps, self._wanted = state, maps, wanted
        self._opened, self._placed = ExitStack(), ExitStack()
        self._buffer = buffer
        self._ended = threading.Event()
        self._is_stopped = False
        self._woken, self._wake = os.pipe()
        self._opened.callback(os.close, self._woken)
        self._opened.callback(os.close, self._wake)
        self.unseen = 0.0
        """Seconds without a lease, since this process was stopped."""
        self.is_over = False
        """Whether other programs stand where this node's were, or none: these show no packets."""
        self.real = _real()
        """Ns from an event's time to CLOCK_REALTIME as it was at the start: order, and `path`'s two
        clocks, would be lost if times followed a clock that is set meanwhile."""

    def __enter__(self) -> Self:
        try:
            self._opened.enter_context(sole_looker(self._state))
            self._tracer = Tracer(self._state, self._buffer)
            self._opened.callback(self._tracer.close)
            self._tracer.ask(self._wanted)
            self._placed.enter_context(in_place(self._maps, self._tracer))
            thread = threading.Thread(target=self._renew, name="lease", daemon=True)
            thread.start()
            self._placed.callback(thread.join)
            self._placed.callback(self._ended.set)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._placed.close()
        self._opened.close()

    @property
    def lost(self) -> int:
        """Packets that found no room in the buffer."""
        return self._tracer.lost()

    @property
    def stepped(self) -> float:
        """Seconds by which the clock was set since the start."""
        step = _real() - self.real
        return step / 1_000_000_000 if abs(step) >= _STEP else 0.0

    def now(self) -> int:
        """Ns since 1970, by the clock of the events."""
        return time.monotonic_ns() + self.real

    def stop(self) -> None:
        """End `batches`. A signal's handler may call it: an exception would lose what was read."""
        self._is_stopped = True
        os.write(self._wake, b"x")

    def batches(self) -> Iterator[list[Event]]:
        """Events as they come, at times none, until it is stopped or over."""
        with select.epoll() as waiting:
            # Edge-triggered: the tracer wakes a reader when much is there, and the rest can wait.
            waiting.register(self._tracer.ring.fileno(), select.EPOLLIN | select.EPOLLET)
            waiting.register(self._woken, select.EPOLLIN)
            while not self._is_stopped and not self.is_over:
                waiting.poll(_READ_EVERY)
                yield self._read()

    def end(self) -> list[Event]:
        """Look no more. The events that were not read yet."""
        self._placed.close()
        return self._read()

    def _read(self) -> list[Event]:
        return [Event.of(record) for record in self._tracer.ring.read()]

    def _renew(self) -> None:
        renewed, is_ended = time.monotonic(), False
        while not is_ended:
            # Once more at the end, which may be asked for while this process is stopped.
            is_ended = self._ended.wait(_RENEW_EVERY)
            now = time.monotonic()
            self.unseen += max(0.0, now - renewed - LEASE)
            self._tracer.ask(self._wanted)
            self.is_over = not self._maps.are_pinned(pin_directory(self._state))
            renewed = now


def _real() -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC, ns: of some readings the one that took least time."""
    readings = []
    for _ in range(10):
        before, real = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.monotonic_ns()
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
