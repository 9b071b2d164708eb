# SPDX-License-Identifier: Apache-2.0
"""Which nodes to serve when a source suddenly has none, or can't be read.

Pure. A source may lose all nodes for a moment, as an API server does that was restored from an
empty backup, or an etcd that was wiped. Running pods must not lose their network by that, nor when
the nodes come back one by one.
"""

from __future__ import annotations

import dataclasses

from vxlane.sources.model import Node, Problem
from vxlane.sources.snapshot import NOTHING_READ, Snapshot

HOLD_DOWN = 300.0
"""Seconds for which peers are kept that vanished all at once."""
_SUSPICIOUS = 2
"""Peers. Fewer than this may well leave at once, as the last one of a cluster of two does."""


class HoldDown:
    """Keeps the last nodes that made sense: the source's, or the cache's until it is read."""

    def __init__(self, last: Snapshot = NOTHING_READ) -> None:
        self._last = last
        self._vanished_at: float | None = None

    def take(self, snapshot: Snapshot, now: float) -> Snapshot:
        """The nodes to serve at `now` (CLOCK_MONOTONIC, seconds). `own` is None if there are none.

        If the source was never read, the kept nodes are served only when it reports an error. While
        its first answer is on its way the kernel's own entries serve, and older nodes must not
        replace them.
        """
        if snapshot.read_at is None:
            return _instead(self._last, snapshot) if snapshot.error else snapshot
        if self._vanished_at is None and not snapshot.peers:
            self._vanished_at = now if len(self._last.peers) >= _SUSPICIOUS else None
        if self._vanished_at is not None and now < self._vanished_at + HOLD_DOWN:
            # Those that hold nothing which another node holds now.
            conflict = snapshot.claims.conflict
            if missing := tuple(peer for peer in self._last.peers if not conflict(peer)):
                return self._held(snapshot, missing)
        self._vanished_at = None
        if snapshot.own is None:
            # The source reports why. Running pods need the entry that this node had.
            snapshot = dataclasses.replace(snapshot, own=self._last.own)
        if snapshot.own is not None:
            self._last = snapshot
        return snapshot

    def _held(self, snapshot: Snapshot, missing: tuple[Node, ...]) -> Snapshot:
        own = snapshot.own or self._last.own
        lost = len(self._last.peers)
        # Without the seconds that are left, since a sentence that changes is logged again.
        reason = (
            f"all {lost} peers vanished at once: the source was read and listed none; "
            f"they stay for up to {HOLD_DOWN:.0f} s"
        )
        more = (Problem(own.name, reason),) if own else ()
        return dataclasses.replace(
            snapshot,
            own=own,
            peers=snapshot.peers + missing,
            problems=snapshot.problems + more,
        )


def _instead(kept: Snapshot, said: Snapshot) -> Snapshot:
    """The nodes of `kept` with the reports of `said`."""
    return dataclasses.replace(kept, problems=said.problems, read_at=said.read_at, error=said.error)
