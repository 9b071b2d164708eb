# SPDX-License-Identifier: Apache-2.0
"""Renews the lease every second, from a thread of its own, while it may be renewed.

The lease promises that the maps hold every event about peers and rules that is older than `LEASE`
seconds. The promise is kept while the agent works through 10,000 peers or waits for a tool, as long
as there is no new event. So the thread asks two things: is an event waiting to be read, and was one
read that is not reconciled yet? If neither, the maps are true now. An agent whose loop hangs loses
the lease when the next event comes. A dead agent does not renew it.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds; a third of the lease, so that one late beat does not matter."""


class Heartbeat:
    """Keeps the last moment at which the maps were true, and calls `renew` with it."""

    def __init__(self, descriptors: Iterable[int], renew: Callable[[float], None]) -> None:
        self._renew = renew
        self._events = select.poll()
        for descriptor in descriptors:
            self._events.register(descriptor, select.POLLIN)
        self._beating = threading.Lock()
        self._is_behind = True
        self._true_at = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._ends.set()
        self._thread.join()

    def fall_behind(self) -> None:
        """An event is about to be read, and is not in the maps yet."""
        self._is_behind = True

    def catch_up(self, began: float) -> None:
        """All events from before `began` (CLOCK_MONOTONIC, seconds) are in the maps."""
        if self._is_behind:
            self._true_at = began
            self._is_behind = False
            self.beat()

    def beat(self) -> None:
        """Renew up to the last moment at which the maps were true."""
        # Two threads come here, and a poll object refuses the second one.
        with self._beating:
            now = time.monotonic()
            if not self._events.poll(0) and not self._is_behind:
                self._true_at = now
            self._renew(self._true_at)

    def _run(self) -> None:
        refusal = ""
        while not self._ends.wait(BEAT):
            try:
                self.beat()
            except Exception as error:
                if str(error) != refusal:
                    log.exception("the lease can't be renewed")
                refusal = str(error)
