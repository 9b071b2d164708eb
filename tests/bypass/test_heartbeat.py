# SPDX-License-Identifier: Apache-2.0
"""Until when the maps are true, as the heartbeat knows it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from vxlane.bypass import heartbeat as heartbeats
from vxlane.bypass.heartbeat import Heartbeat
from vxlane.lab.waiting import wait_for


@pytest.fixture
def events() -> Iterator[tuple[int, int]]:
    """A descriptor that is readable when something was written to the other."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def renewed() -> list[float]:
    """The moments for which the lease was renewed."""
    return []


@pytest.fixture
def heart(events, renewed, monkeypatch) -> Iterator[Heartbeat]:
    """A heartbeat that beats when it is told to."""
    monkeypatch.setattr(heartbeats, "BEAT", 60)
    made = Heartbeat([events[0]], renewed.append)
    yield made
    made.close()


def test_nothing_is_true_before_the_first_reconcile(heart, renewed) -> None:
    """An agent that has just come knows nothing of its maps."""
    heart.beat()
    assert renewed == [0.0]


def test_maps_stay_true_while_nothing_is_told(heart, renewed) -> None:
    """Once they are, every beat is of now, however long the loop is busy."""
    heart.catch_up(time.monotonic())
    before = time.monotonic()
    heart.beat()
    assert renewed[-1] >= before


def test_two_threads_may_beat_at_once(heart, renewed) -> None:
    """The agent's own thread beats too when it has caught up. Python's poll() serves one thread."""
    heart.catch_up(time.monotonic())
    with ThreadPoolExecutor(4) as pool:
        beats = [pool.submit(heart.beat) for _ in range(20_000)]
    assert {beat.exception() for beat in beats} == {None}
    assert len(renewed) == 1 + len(beats)


def test_an_event_that_waits_ends_the_truth(heart, renewed, events) -> None:
    """What the loop has not read yet counts against it."""
    heart.catch_up(time.monotonic())
    heart.beat()
    last = renewed[-1]
    os.write(events[1], b"!")
    heart.beat()
    assert renewed[-1] == last


def test_an_event_that_was_read_does_too(heart, renewed, events) -> None:
    """From its reading to the reconcile the maps are as true as before it."""
    heart.catch_up(time.monotonic())
    last = renewed[-1]
    os.write(events[1], b"!")
    heart.fall_behind()
    os.read(events[0], 1)
    heart.beat()
    assert renewed[-1] == last
    began = time.monotonic()
    heart.catch_up(began)
    assert renewed[-1] >= began


def test_it_beats_by_itself(events, renewed, monkeypatch) -> None:
    """No loop has to call it, and a beat that fails is not the last."""
    monkeypatch.setattr(heartbeats, "BEAT", 0.001)

    def renew(true_at: float) -> None:
        renewed.append(true_at)
        if len(renewed) == 1:
            raise OSError

    heart = Heartbeat([events[0]], renew)
    wait_for(lambda: len(renewed) > 3, "beats")
    heart.close()
    after = len(renewed)
    time.sleep(0.01)
    assert len(renewed) == after
