# SPDX-License-Identifier: Apache-2.0
"""When the agent reconciles, and what."""

from __future__ import annotations

from math import inf

import pytest

from vxlane.agent.pace import LONGEST_PAUSE, LONGEST_RETRY, MOST_PER_SECOND, PAUSE, Pace
from vxlane.util.dirty import ALL, Dirty

GATHER = 0.003


@pytest.fixture
def pace() -> Pace:
    """The pace of an agent that has been quiet since its first reconcile."""
    pace = Pace(GATHER, 0.0)
    pace.take()
    pace.succeeded(0.1, 0.05)
    return pace


def test_the_first_reconcile_is_of_all_and_at_once() -> None:
    """An agent that starts compares everything without a request."""
    pace = Pace(GATHER, 5.0)
    assert pace.due == 5.0
    assert pace.take() == ALL
    assert pace.due == inf


def test_requests_of_one_go_are_one_reconcile(pace: Pace) -> None:
    """Requests that come while others are gathered join them, and the first sets the time."""
    pace.request(Dirty.NODES, 10.0)
    pace.request(Dirty.ROUTES, 10.002)
    assert pace.due == pytest.approx(10.0 + GATHER)
    assert pace.take() == Dirty.NODES | Dirty.ROUTES


def test_nothing_requested_is_nothing_due(pace: Pace) -> None:
    """An event that changes nothing makes nothing due."""
    pace.request(Dirty(0), 10.0)
    assert pace.due == inf


@pytest.mark.parametrize(
    ("cpu", "pause"), [(0.001, PAUSE), (0.2, 0.2), (LONGEST_PAUSE * 5, LONGEST_PAUSE)]
)
def test_the_pause_grows_with_the_work(pace: Pace, cpu: float, pause: float) -> None:
    """After a reconcile the next one waits for as long as that took of the CPU, within bounds."""
    pace.succeeded(10.0, cpu)
    pace.request(Dirty.NODES, 10.0)
    assert pace.due == pytest.approx(10.0 + pause)


def test_a_storm_is_limited_per_second(pace: Pace) -> None:
    """A request every millisecond for ten seconds costs at most eight reconciles a second."""
    reconciles, now = 0, 10.0
    while now < 20.0:
        pace.request(Dirty.NODES, now)
        if pace.due <= now:
            pace.take()
            pace.succeeded(now, 0.001)
            reconciles += 1
        now += 0.001
    assert reconciles == 10 * MOST_PER_SECOND


def test_failures_are_tried_again_ever_later(pace: Pace) -> None:
    """What failed is tried again, and everything with it, after 1, 2, 4 ... 30 seconds."""
    waits = []
    for _ in range(7):
        pace.failed(10.0, 0.001)
        waits.append(pace.due - 10.0)
        assert pace.take() == ALL
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_RETRY, LONGEST_RETRY]


def test_a_failure_may_last_for_months(pace: Pace) -> None:
    """A disk that is full stays full: each time is like the one before."""
    for now in range(100_000):
        pace.failed(float(now), 0.001)
    assert pace.due == now + LONGEST_RETRY


def test_success_ends_the_waiting(pace: Pace) -> None:
    """After a success the next failure is tried again after one second."""
    for _ in range(3):
        pace.failed(10.0, 0.001)
    pace.succeeded(20.0, 0.001)
    pace.failed(30.0, 0.001)
    assert pace.due == pytest.approx(31.0)


def test_a_request_does_not_wait_for_the_retry(pace: Pace) -> None:
    """What changes after a failure is reconciled at once, with all that failed."""
    for _ in range(5):
        pace.failed(10.0, 0.001)
    pace.request(Dirty.NODES, 12.0)
    assert pace.due == pytest.approx(12.0 + GATHER)
    assert pace.take() == ALL
