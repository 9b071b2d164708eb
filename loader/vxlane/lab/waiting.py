# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition that no descriptor announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from vxlane.errors import LabError

Found = TypeVar("Found")

_PAUSE = 0.01


def wait_for(condition: Callable[[], Found | None], what: str, *, seconds: float = 5.0) -> Found:
    """The first true value of `condition`. LabError: `what` did not come in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(_PAUSE)
    return found
