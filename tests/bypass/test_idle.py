# SPDX-License-Identifier: Apache-2.0
"""How often the records are walked along for connections that fell silent."""

from __future__ import annotations

import itertools
import time

import pytest

from vxlane.bypass.idle import IdleConnections

SECOND = 1_000_000_000


class Walked:
    """Maps without a record, which write down the spans that they are asked for."""

    def __init__(self):
        self.spans = []

    def connections_last_used(self, after, until):
        """None was."""
        self.spans.append((after // SECOND, until // SECOND))
        return iter(())


def test_a_walk_begins_once_in_a_third_of_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each span follows the one before, and no second of it is left out."""
    seconds = itertools.count()
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: next(seconds) * SECOND)
    maps = Walked()
    idle = IdleConnections(maps)
    for _ in range(99):
        idle.sync(30 * SECOND)
    assert maps.spans == [(0, 11), (11, 22), (22, 33), (33, 44), (44, 55), (55, 66)]
