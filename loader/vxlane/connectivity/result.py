# SPDX-License-Identifier: Apache-2.0
"""What came of each test, and the document that `--json` prints of all. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class Result(enum.Enum):
    """How a test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It was not tried, and says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One test of one end."""

    to: str
    """Where it went: a peer, a pod's address, a Service."""
    test: str
    result: Result
    detail: str
    figure: float | None = None
    """What was measured, in the unit that docs/json.md gives for the test."""


def document(address: str, findings: Sequence[Finding]) -> Json:
    """All findings of a probe pod at `address`."""
    tests = [
        {
            "to": found.to,
            "test": found.test,
            "result": found.result.value,
            "detail": found.detail,
            "figure": found.figure,
        }
        for found in findings
    ]
    counts = {each.value: sum(found.result is each for found in findings) for each in Result}
    return {"probe": address, "tests": tests, **counts}
