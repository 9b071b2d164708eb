# SPDX-License-Identifier: Apache-2.0
"""Threads that never give up, which all sources that speak with a server have.

A `Follower` runs one round after the other ("list, then watch until the stream ends") for ever. A
`Reconciler` makes this node's own entry right whenever that is requested. What fails is reported,
and tried again after a jittered back-off. Knows no server; of HTTP only Retry-After.
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
    """The same while the server has been away for less than a minute: most are back by then."""
    timeout: float = 10.0
    """For a connection, and for the next bytes of an answer."""
    silence: float = 90.0
    """For the next event of a stream. An API server sends a bookmark about once a minute."""

    def waits(self) -> Iterator[float]:
        """The back-off after each failure in a row, between half and the whole of its time."""
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
    """An attempt failed; the server asks to be left alone for `pause` seconds."""

    pause: float = 0.0


def attempt(
    name: str, action: Callable[[], Result], failed: Callable[[str], None]
) -> Result | Failure:
    """The result of `action`; any exception is reported by `failed` and becomes a Failure."""
    try:
        return action()
    except VxlaneError as error:
        failed(str(error))
        return Failure(error.retry_after if isinstance(error, HttpError) else 0.0)
    except Exception as error:
        # No answer of a server may end the thread, which is not started again.
        log.exception("%s failed in a way that was not foreseen", name)
        failed(f"unexpected {type(error).__name__}: {error}; please report it")
        return Failure()


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
    """Runs `reconcile` in a thread of its own whenever `request` was called, or when as many
    seconds have passed as it returned.

    Level-triggered: `reconcile` reads what there is, compares, and writes only what is wanting.
    While it raises it is run again after a back-off, which a request cuts short: the request says
    that something has changed, so the next attempt may well succeed. Between two attempts lies the
    shortest back-off in any case, and what a Retry-After asks for. `complain` hears why an attempt
    failed, and "" after a success.
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
