# SPDX-License-Identifier: Apache-2.0
"""Threads that try again for ever, for all sources that speak with a server.

A `Follower` runs one round after the other: list, then watch until the stream ends. A `Reconciler`
repairs this node's own entry whenever that is requested. A failure is reported, and tried again
after a back-off with jitter. Knows no particular server, and of HTTP only Retry-After.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from vxlane.errors import VxlaneError
from vxlane.sources.http import HttpError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

STOP_TIMEOUT = 0.2
"""Seconds that close() waits for a thread. One that is inside a connect() ends by itself."""


_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a source waits for its server; all in seconds."""

    shortest: float = 1.0
    """Back-off after a first failure; it doubles with each that follows, up to `longest`."""
    longest: float = 30.0
    longest_at_first: float = 5.0
    """As `longest`, in the first minute of an outage: most servers are back by then."""
    timeout: float = 10.0
    """For a connection, and for the next bytes of an answer."""
    silence: float = 90.0
    """For the next event of a stream. An API server sends a bookmark about once a minute."""

    def waits(self) -> Iterator[float]:
        """The back-off after each failure in a row, reduced at random by up to a half."""
        wait, waited = self.shortest, 0.0
        while True:
            # Jitter: 5,000 agents that lost one server must not come back at the same time.
            yield wait * random.uniform(0.5, 1.0)  # noqa: S311 - it is no secret
            waited += wait
            longest = self.longest if waited >= _MINUTE else self.longest_at_first
            wait = min(2 * wait, longest, self.longest)


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt failed. The server asks for a pause of `pause` seconds."""

    pause: float = 0.0


def attempt(
    name: str, action: Callable[[], Result], failed: Callable[[str], None]
) -> Result | Failure:
    """The result of `action`. Any exception is reported to `failed` and becomes a Failure."""
    try:
        return action()
    except VxlaneError as error:
        failed(str(error))
        return Failure(error.retry_after if isinstance(error, HttpError) else 0.0)
    except Exception as error:
        # No answer of a server may end the thread, which is not started again.
        log.exception("%s failed unexpectedly", name)
        failed(f"unexpected {type(error).__name__}: {error}; please report it")
        return Failure()


class Follower:
    """Runs `round_` again and again in a thread of its own until closed.

    A round that raises is reported to `failed`, and run again after a back-off or the server's
    Retry-After, whichever is longer. A round that returns is run again at once, but not more often
    than the shortest back-off.
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
        """Start no further round, and wait a moment for the current one. May be called twice."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        waits = self._timing.waits()
        while not self._closed.is_set():
            began = time.monotonic()
            result = attempt(self._thread.name, self._round, self._report)
            lasted = time.monotonic() - began
            ended_well = result is None and lasted > self._timing.shortest
            if ended_well or lasted > self._timing.longest:
                waits = self._timing.waits()
            if not ended_well:
                pause = result.pause if isinstance(result, Failure) else 0.0
                self._closed.wait(max(next(waits), pause))

    def _report(self, reason: str) -> None:
        if not self._closed.is_set():
            self._failed(reason)


class Reconciler:
    """Runs `reconcile` in a thread of its own, when `request` is called and after as many seconds
    as the last run returned.

    Level-triggered: `reconcile` reads what there is, compares, and writes only what differs. While
    it raises, it is run again after a back-off. A request ends the back-off, because something has
    changed and the next attempt may succeed. Two attempts are always separated by the shortest
    back-off and by a Retry-After. `complain` is called with the reason of each failure, and with ""
    after a success.
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
        self._timing = timing
        self._due: float | None = None
        """Seconds until the next attempt that is not requested; None: there is none."""
        self._requested = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to wait for a first request."""
        self._thread.start()

    def request(self) -> None:
        """The entry may be wrong: check it soon. Returns at once."""
        self._requested.set()

    def close(self) -> None:
        """Reconcile no more; may be called twice."""
        self._closed.set()
        self._requested.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        waits, pause = self._timing.waits(), 0.0
        while not self._closed.wait(pause):
            self._requested.wait(self._due)
            # Cleared before the read: a change that comes during the read must cause another one.
            self._requested.clear()
            if self._closed.is_set():
                return
            result = attempt(self._thread.name, self._reconcile, self._complain)
            pause = self._timing.shortest
            if isinstance(result, Failure):
                pause = max(pause, result.pause)
                self._due = max(0.0, next(waits) - pause)
            else:
                waits, self._due = self._timing.waits(), result
                self._complain("")
