# SPDX-License-Identifier: Apache-2.0
"""Which nodes to serve when a source contradicts the served ones, or can't be read.

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
    """The last nodes that made sense: the source's, or the cache's before that was ever read."""

    def __init__(self, last: Snapshot = NOTHING_READ) -> None:
        self._last = last
        self._vanished_at: float | None = None

    def take(self, snapshot: Snapshot, now: float) -> Snapshot:
        """The nodes to go by (`now`: seconds of CLOCK_MONOTONIC); `own` None: none yet.

        A source that was never read counts only when it says why: while its first answer is on its
        way the kernel's own entries serve, and older nodes must not be written over them.
        """
        if snapshot.read_at is None:
            return _instead(self._last, snapshot) if snapshot.error else snapshot
        if not snapshot.peers and len(self._last.peers) >= _SUSPICIOUS:
            self._vanished_at = now if self._vanished_at is None else self._vanished_at
            if now < self._vanished_at + HOLD_DOWN:
                return self._held(snapshot)
        self._vanished_at = None
        if snapshot.own is None:
            # The source reports why. Running pods live on the entry that we had.
            snapshot = dataclasses.replace(snapshot, own=self._last.own)
        if snapshot.own is not None:
            self._last = snapshot
        return snapshot

    def _held(self, snapshot: Snapshot) -> Snapshot:
        own = snapshot.own or self._last.own
        lost = len(self._last.peers)
        # No count of seconds that are left: a sentence that changes is logged anew.
        reason = (
            f"all {lost} peers vanished at once: the source was read and lists none; "
            f"they stay for up to {HOLD_DOWN:.0f} s"
        )
        more = (Problem(own.name, reason),) if own else ()
        return _instead(dataclasses.replace(self._last, own=own), snapshot, *more)


def _instead(kept: Snapshot, said: Snapshot, *more: Problem) -> Snapshot:
    """The nodes of `kept` with the reports of `said`."""
    return dataclasses.replace(
        kept, problems=said.problems + more, read_at=said.read_at, error=said.error
    )
