# SPDX-License-Identifier: Apache-2.0
"""Which nodes to go by when a source contradicts what has been serving.

Pure. A source may lose everything for a moment (an API server that restored an empty backup, an
etcd that was wiped); the network of running pods must not go with it.
"""

from __future__ import annotations

import dataclasses

from vxlane.sources.model import Problem
from vxlane.sources.snapshot import NOTHING_READ, Snapshot

HOLD_DOWN = 300.0
"""Seconds for which peers stay that vanished all at once."""
_SUSPICIOUS = 2
"""Fewer peers than this may well leave together: the last one of a cluster of two."""


class HoldDown:
    """The last snapshot that made sense."""

    def __init__(self, last: Snapshot = NOTHING_READ) -> None:
        self._last = last
        self._vanished_at: float | None = None

    def take(self, snapshot: Snapshot, now: float) -> Snapshot:
        """What to go by now (CLOCK_MONOTONIC seconds); `own` is None only before the first."""
        if snapshot.own is None:
            if self._last.own is not None:
                return _instead(self._last, snapshot)
            return snapshot
        if not snapshot.peers and len(self._last.peers) >= _SUSPICIOUS:
            self._vanished_at = now if self._vanished_at is None else self._vanished_at
            if now - self._vanished_at < HOLD_DOWN:
                lost = len(self._last.peers)
                # Not the time left: a problem is logged anew when its words change.
                reason = f"all {lost} peers vanished at once; they stay for {HOLD_DOWN:.0f} s"
                held = dataclasses.replace(self._last, own=snapshot.own)
                return _instead(held, snapshot, Problem(snapshot.own.name, reason))
        self._vanished_at = None
        self._last = snapshot
        return snapshot


def _instead(kept: Snapshot, said: Snapshot, *more: Problem) -> Snapshot:
    """The nodes of `kept` with the reports of `said`."""
    return dataclasses.replace(
        kept, problems=said.problems + more, read_at=said.read_at, error=said.error
    )
