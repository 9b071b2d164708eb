# SPDX-License-Identifier: Apache-2.0
"""What could not be done, and is to be tried again: one failure stops nothing else."""

from __future__ import annotations

import logging
from types import TracebackType

from vxlane.errors import VxlaneError

log = logging.getLogger(__name__)


class Failures:
    """The failures of the last attempt at each thing, by what it was.

        with failures.attempt("rules"):
            ...

    An exception inside ends the block, is noted and is logged when it is new. A signal's is raised.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        """In whole sentences."""

    def attempt(self, what: str) -> Attempt:
        """A block that may fail."""
        return Attempt(self, what)

    def ended(self, what: str, error: Exception | None) -> None:
        """Note how an attempt ended."""
        if error is None:
            if self.reasons.pop(what, None):
                log.info("%s: works again", what)
            return
        if isinstance(error, VxlaneError | OSError):
            reason = str(error)
            if self.reasons.get(what) != reason:
                log.error("%s: %s", what, error)
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
        """End; whether what was raised is dealt with."""
        if error is not None and not isinstance(error, Exception):
            return False
        self._failures.ended(self._what, error)
        return True
