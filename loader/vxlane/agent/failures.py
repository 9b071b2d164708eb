# SPDX-License-Identifier: Apache-2.0
"""Failures that are tried again. One failure stops only the part that failed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from vxlane.errors import VxlaneError
from vxlane.util.capabilities import in_words

log = logging.getLogger(__name__)

T = TypeVar("T")


class Failures:
    """The failure of the last attempt at each part, by the part's name.

        with failures.attempt("rules"):
            ...

    An exception ends the block and is kept as the part's failure. It is logged when it is new. An
    exception that is no Exception, as a signal's, is raised.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        """In whole sentences."""

    def attempt(self, what: str) -> Attempt:
        """A block that may fail."""
        return Attempt(self, what)

    def up_to_one(self, what: str, steps: Iterator[T]) -> Iterator[T]:
        """The results of `steps`, up to the first step that fails. Each step is an attempt."""
        while True:
            made: list[T] = []
            with self.attempt(what):
                made += itertools.islice(steps, 1)
            if not made:
                return
            yield from made

    def ended(self, what: str, error: Exception | None) -> None:
        """Note how an attempt ended."""
        if error is None:
            if self.reasons.pop(what, None):
                log.info("%s: works again", what)
            return
        if isinstance(error, VxlaneError | OSError):
            reason = in_words(error) if isinstance(error, OSError) else str(error)
            if self.reasons.get(what) != reason:
                log.error("%s: %s", what, reason)
        else:
            reason = f"unexpected {type(error).__name__}: {error}; please report it"
            if self.reasons.get(what) != reason:
                log.error("%s failed unexpectedly", what, exc_info=error)
        self.reasons[what] = reason


class Attempt:
    """One block; see `Failures`."""

    def __init__(self, failures: Failures, what: str) -> None:
        self._failures = failures
        self._what = what

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Note the end; True: the exception goes no further."""
        if error is not None and not isinstance(error, Exception):
            return False
        self._failures.ended(self._what, error)
        return True
