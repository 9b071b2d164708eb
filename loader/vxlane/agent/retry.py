# SPDX-License-Identifier: Apache-2.0
"""Leaves a costly step that failed alone for a while. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vxlane.errors import VxlaneError

Result = TypeVar("Result")


class Retry:
    """Runs a step at most once in `pause` seconds after it has failed."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._failure: VxlaneError | None = None
        self._not_before = 0.0

    def run(self, step: Callable[[], Result]) -> Result:
        """The result of `step`; within the pause after a failure that failure again."""
        if self._failure and time.monotonic() < self._not_before:
            raise self._failure
        try:
            result = step()
        except VxlaneError as error:
            self._failure, self._not_before = error, time.monotonic() + self._pause
            raise
        self._failure = None
        return result
