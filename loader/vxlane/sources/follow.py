# SPDX-License-Identifier: Apache-2.0
"""What the sources that follow a server share: a thread that never gives up, and a table of nodes.

A `Follower` runs one round after the other ("list, then watch until the stream ends") for ever. A
round that fails is reported, and run again after a jittered back-off. A `Reconciler` is a follower
that keeps this node's own entry right. A `NodeTable` holds the entries that were read, gives
snapshots of them to another thread, and tells it of changes by an eventfd. Knows no server; of HTTP
only Retry-After.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from vxlane.errors import VxlaneError
from vxlane.sources.http import HttpError
from vxlane.sources.model import Node, Problem
from vxlane.sources.snapshot import NOTHING_READ, Snapshot, agree

log = logging.getLogger(__name__)

STOP_TIMEOUT = 0.2
"""Seconds that close() waits for a thread; one that is inside a connect() ends by itself."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a source is with its server; all in seconds."""

    shortest: float = 1.0
    """Back-off after a first failure; it doubles with each that follows, up to `longest`."""
    longest: float = 30.0
    timeout: float = 10.0
    """For a connection, and for the next bytes of an answer."""
    silence: float = 90.0
    """For the next event of a stream. An API server sends a bookmark about once a minute."""

    def waits(self) -> Iterator[float]:
        """The back-off after each failure in a row, between half and the whole of its time."""
        wait = self.shortest
        while True:
            # Jitter: 5,000 agents that lost one server must not come back in step.
            yield wait * random.uniform(0.5, 1.0)  # noqa: S311 - nobody gains from guessing it
            wait = min(2 * wait, self.longest)


DEFAULT_TIMING = Timing()


class Follower:
    """Runs `round_` again and again in a thread of its own until closed.

    A round that raises is reported with `failed` and run again after a back-off (or after what
    the server's Retry-After asks for, if that is longer); one that returns is run again at once,
    but not more often than the shortest back-off.
    """

    def __init__(
        self,
        name: str,
        round_: Callable[[], None],
        *,
        failed: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self._round = round_
        self._failed = failed
        self._timing = timing
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with the first round."""
        self._thread.start()

    def close(self) -> None:
        """Begin no further round, and wait a little for the one under way; may be called twice."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        waits = self._timing.waits()
        while not self._closed.is_set():
            began = time.monotonic()
            pause = self._once()
            lasted = time.monotonic() - began
            ended_well = pause is None and lasted > self._timing.shortest
            if ended_well or lasted > self._timing.longest:
                waits = self._timing.waits()
            if not ended_well:
                self._closed.wait(max(next(waits), pause or 0.0))

    def _once(self) -> float | None:
        """Run one round; None if all went well, else the seconds that the server asks to wait."""
        try:
            self._round()
        except VxlaneError as error:
            if not self._closed.is_set():
                self._failed(str(error))
            return error.retry_after if isinstance(error, HttpError) else 0.0
        except Exception as error:
            # Whatever a server answers must not end the thread: nobody would start it again.
            log.exception("a round of %s failed in a way that nobody foresaw", self._thread.name)
            self._failed(f"unexpected {type(error).__name__}: {error}; please report it")
            return 0.0
        return None


class Reconciler:
    """Runs `reconcile` whenever `request` was called or the time that it returned (s) has passed.

    Level-triggered: `reconcile` reads what there is, compares, and writes only what is wanting.
    While it raises it is run again after a back-off, and `complain` hears why; then it hears "".
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[], float | None],
        *,
        complain: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self._reconcile = reconcile
        self._complain = complain
        self._due: float | None = None
        self._requested = threading.Event()
        self._closed = False
        self._follower = Follower(name, self._round, failed=complain, timing=timing)

    def start(self) -> None:
        """Begin to wait for a first request."""
        self._follower.start()

    def request(self) -> None:
        """The entry may be wrong: check it soon. Returns at once."""
        self._requested.set()

    def close(self) -> None:
        """Reconcile no more; may be called twice."""
        self._closed = True
        self._requested.set()
        self._follower.close()

    def _round(self) -> None:
        self._requested.wait(self._due)
        # Cleared before the read: a change that comes during the read must cause another one.
        self._requested.clear()
        if self._closed:
            return
        try:
            self._due = self._reconcile()
        except Exception:
            self._requested.set()
            raise
        self._complain("")


class NodeTable:
    """The nodes as one source knows them: written by its thread, read by the agent's.

    Entries are kept by the source's own key (a node's name, an etcd key) in the order of their
    age: where two nodes contradict each other the older one stays, here and on every other node.
    """

    def __init__(self, own_name: str) -> None:
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._own_name = own_name
        self._lock = threading.Lock()
        self._entries: dict[str, Node | Problem] = {}
        self._network: IPv4Network | None = None
        self._read_at: float | None = None
        self._error = ""
        self._complaint = ""
        self._settled = NOTHING_READ
        self._stale = False

    def replace(
        self, entries: Mapping[str, Node | Problem], *, network: IPv4Network | None = None
    ) -> None:
        """A full list, oldest node first; what it does not hold is gone."""
        with self._lock:
            if self._read_at is None or (entries, network) != (self._entries, self._network):
                self._entries, self._network = dict(entries), network
                self._tell()
            self._well()

    def put(self, key: str, entry: Node | Problem | None) -> None:
        """One change; None: there is no such node, or none of this network."""
        with self._lock:
            if self._entries.get(key) != entry:
                if entry is None:
                    del self._entries[key]
                else:
                    self._entries[key] = entry
                self._tell()
            self._well()

    def confirm(self) -> None:
        """The server is there, and what is known is still so."""
        with self._lock:
            self._well()

    def fail(self, error: str) -> None:
        """The server can't be read now; what is known stays."""
        with self._lock:
            if not self._error:
                log.warning("nodes can't be followed, the last %s stay: %s", self._count(), error)
                self._wake()
            self._error = error

    def complain(self, reason: str) -> None:
        """Something about this node's own entry can't be put right now; "": it is again."""
        with self._lock:
            if reason != self._complaint:
                self._complaint = reason
                self._tell()

    def on_event(self) -> bool:
        """See `NodeSource`; always True, since the eventfd is written for changes only."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.changed)
        return True

    def snapshot(self) -> Snapshot:
        """See `NodeSource.nodes`; cheap while nothing changed."""
        with self._lock:
            if self._stale and self._read_at is not None:
                self._settled, self._stale = self._settle(), False
            return dataclasses.replace(self._settled, read_at=self._read_at, error=self._error)

    def close(self) -> None:
        """Close the eventfd; may be called twice, and before the source's thread has ended."""
        with self._lock:
            if self.changed >= 0:
                os.close(self.changed)
                self.changed = -1

    def _settle(self) -> Snapshot:
        nodes = [entry for entry in self._entries.values() if isinstance(entry, Node)]
        problems = [entry for entry in self._entries.values() if isinstance(entry, Problem)]
        settled = agree(
            nodes,
            self._own_name,
            problems=problems,
            network=self._network,
            previous=self._settled,
        )
        # Only now: an own name among the problems makes agree keep the entry that we had.
        about_us = [self._complaint] if self._complaint else []
        if not self._entries:
            about_us.append("the source's list of nodes is empty, not even this node is in it")
        more = tuple(Problem(self._own_name, reason) for reason in about_us)
        return dataclasses.replace(settled, problems=settled.problems + more)

    def _tell(self) -> None:
        self._stale = True
        self._wake()

    def _well(self) -> None:
        self._read_at = time.monotonic()
        if self._error:
            log.info("nodes are followed again: %s", self._count())
            self._error = ""
            self._wake()

    def _count(self) -> str:
        return f"{len(self._entries)} entries"

    def _wake(self) -> None:
        if self.changed >= 0:
            os.eventfd_write(self.changed, 1)
