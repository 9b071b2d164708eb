# SPDX-License-Identifier: Apache-2.0
"""The clock of a look at packets."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from vxlane.trace.session import Session

HOUR = 3600 * 10**9


def test_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clock that is set meanwhile it is known by how much; the time of events goes on."""
    read = time.clock_gettime_ns
    # It is not entered: that needs the programs of a node.
    with contextlib.ExitStack() as closing:
        session = Session(Path(), maps=None, wanted=None, buffer=0)
        closing.push(session)
        assert session.stepped == 0
        before = session.now()
        monkeypatch.setattr(time, "clock_gettime_ns", lambda clock: read(clock) - HOUR)
        assert session.stepped == pytest.approx(-3600, abs=0.1)
        assert before <= session.now() < before + HOUR
