# SPDX-License-Identifier: Apache-2.0
"""When the agent reconciles, and what.

Pure: every time is an argument, in seconds of CLOCK_MONOTONIC. The first request after a quiet time
is served within milliseconds. After each reconcile there is a pause that grows with its work, and
there is a limit per second. So 500 changes in a second cause a few reconciles and not 500.
"""

from __future__ import annotations

from collections import deque
from math import inf

from vxlane.util.dirty import ALL, Dirty

PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between two reconciles: as long as the last one used the CPU, within these bounds."""
MOST_PER_SECOND = 8
"""Reconciles. Only a storm of changes reaches this limit."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds. After failures everything is compared again after 1, 2, 4 ... and at last this many."""


class Pace:
    """Gathers requests, and says when to reconcile them."""

    def __init__(self, gather: float, now: float) -> None:
        self._gather = gather
        """Seconds from a request to the reconcile, so that one reconcile serves many requests."""
        self._pending = ALL
        self._due = now
        self._not_before = now
        self._ends = deque([-inf] * MOST_PER_SECOND, maxlen=MOST_PER_SECOND)
        self._retry = FIRST_RETRY

    @property
    def due(self) -> float:
        """When to reconcile. Infinity: nothing is requested."""
        return self._due if self._pending else inf

    def request(self, dirty: Dirty, now: float) -> None:
        """Reconcile `dirty` as soon as that may be."""
        if not dirty:
            return
        soonest = max(now + self._gather, self._not_before)
        self._due = min(self._due, soonest) if self._pending else soonest
        self._pending |= dirty

    def take(self) -> Dirty:
        """Return what was requested, and forget it."""
        dirty, self._pending = self._pending, Dirty(0)
        return dirty

    def succeeded(self, now: float, cpu: float) -> None:
        """A reconcile that took `cpu` seconds of the CPU has just ended."""
        self._retry = FIRST_RETRY
        self._rest(now, cpu)

    def failed(self, now: float, cpu: float) -> None:
        """A reconcile has ended, and some part of it failed: everything is tried again later."""
        self._rest(now, cpu)
        self._pending = ALL
        self._due = now + self._retry
        self._retry = min(2 * self._retry, LONGEST_RETRY)

    def _rest(self, now: float, cpu: float) -> None:
        self._ends.append(now)
        pause = min(max(PAUSE, cpu), LONGEST_PAUSE)
        self._not_before = max(now + pause, self._ends[0] + 1.0)
