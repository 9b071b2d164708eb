# SPDX-License-Identifier: Apache-2.0
"""One failure stops nothing else, is said once, and ends with a line."""

from __future__ import annotations

import logging

import pytest

from vxlane.agent.failures import Failures
from vxlane.errors import ConfigError


def fail(failures: Failures, what: str, error: BaseException) -> None:
    """Attempt `what` and meet `error`."""
    with failures.attempt(what):
        raise error


def test_a_failure_is_noted_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    """A reason is logged when it is new, kept until the same thing succeeds, and then gone."""
    caplog.set_level(logging.INFO, "vxlane")
    failures = Failures()
    for _ in range(3):
        fail(failures, "rules", ConfigError("no iptables"))
    fail(failures, "entries", OSError(28, "No space left on device", "/run/x"))
    assert failures.reasons == {
        "rules": "no iptables",
        "entries": "/run/x: No space left on device",
    }
    with failures.attempt("rules"):
        pass
    assert list(failures.reasons) == ["entries"]
    assert [record.getMessage() for record in caplog.records] == [
        "rules: no iptables",
        "entries: /run/x: No space left on device",
        "rules: works again",
    ]


def test_the_unexpected_is_a_failure_too() -> None:
    """A fault of the program does not end the agent, and asks for a report."""
    failures = Failures()
    fail(failures, "bypass", KeyError("veth7"))
    assert failures.reasons["bypass"] == "unexpected KeyError: 'veth7'; please report it"


def test_a_signal_is_no_failure() -> None:
    """What a signal raises goes through, and nothing is noted."""
    failures = Failures()
    with pytest.raises(KeyboardInterrupt):
        fail(failures, "rules", KeyboardInterrupt("SIGTERM"))
    assert not failures.reasons
