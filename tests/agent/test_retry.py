# SPDX-License-Identifier: Apache-2.0
"""A step that failed is left alone for a while; problems are logged when they come and go."""

from __future__ import annotations

import logging

import pytest

from vxlane.agent.problems import Problems
from vxlane.agent.retry import Retry
from vxlane.errors import ConfigError
from vxlane.sources.model import Problem


def test_a_failure_is_repeated_without_the_step() -> None:
    """Within the pause the same failure is raised, and after it the step runs again."""
    runs = []

    def step() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ConfigError("does not compile")
        return len(runs)

    retry = Retry(600.0)
    for _ in range(3):
        with pytest.raises(ConfigError, match="does not compile"):
            retry.run(step)
    assert len(runs) == 1
    eager = Retry(0.0)
    runs.clear()
    with pytest.raises(ConfigError):
        eager.run(step)
    assert [eager.run(step), eager.run(step)] == [2, 3]


def test_a_problem_is_logged_when_it_comes_and_goes(caplog: pytest.LogCaptureFixture) -> None:
    """A problem that stays is logged once."""
    caplog.set_level(logging.INFO, "vxlane")
    problems, lasting = Problems(), Problem("node2", "has no MAC")
    for now in ([lasting], [lasting, Problem("node3", "no route")], [lasting], [lasting], []):
        problems.replace(now)
    assert problems.current == ()
    assert [record.getMessage() for record in caplog.records] == [
        "node node2: has no MAC",
        "node node3: no route",
        "node node3: no longer so: no route",
        "node node2: no longer so: has no MAC",
    ]


def test_a_problem_of_all_nodes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A NIC that goes down leaves no route to any of 5,000 peers, and one that comes up to each."""
    caplog.set_level(logging.INFO, "vxlane")
    problems = Problems()
    problems.replace(Problem(f"node{number}", "no route") for number in range(5000))
    problems.replace([])
    assert len(caplog.messages) < 200
    assert caplog.messages[0] == "node node0: no route"
    assert caplog.records[50].levelno == logging.WARNING
    assert caplog.messages[50].startswith("... and 4950 more problems")
    assert caplog.messages[-1].startswith("... and 4950 more problems")
