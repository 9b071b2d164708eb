# SPDX-License-Identifier: Apache-2.0
"""What a check finds, and how it is told. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class Level(enum.IntEnum):
    """How bad it is."""

    OK = 0
    WARN = 1
    """It costs speed, or may cost packets one day."""
    FAIL = 2
    """Packets are lost, or nothing is bypassed."""

    @property
    def label(self) -> str:
        """Its name in output."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check looked at."""

    check: str
    level: Level
    says: str
    """What is so."""
    meaning: str = ""
    """What follows from it."""
    fix: tuple[str, ...] = ()
    """Commands that mend it, in their order."""


def ok(check: str, says: str, meaning: str = "") -> Finding:
    """It is as it should be."""
    return Finding(check, Level.OK, says, meaning)


def warn(check: str, says: str, meaning: str, *fix: str) -> Finding:
    """It works, and could work better."""
    return Finding(check, Level.WARN, says, meaning, fix)


def fail(check: str, says: str, meaning: str, *fix: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.FAIL, says, meaning, fix)


def worst(found: Iterable[Finding]) -> Level:
    """The worst level of all; OK for none."""
    return max((finding.level for finding in found), default=Level.OK)


def document(found: Iterable[Finding]) -> Json:
    """What `vxlane doctor --json` prints; docs/json.md explains its keys."""
    kept = list(found)
    return {
        "worst": worst(kept).label,
        "findings": [
            {
                "check": finding.check,
                "level": finding.level.label,
                "says": finding.says,
                "meaning": finding.meaning or None,
                "fix": list(finding.fix),
            }
            for finding in kept
        ],
    }


def text(document: Json) -> str:
    """The same for people: the worst first, what is well as one line each at the end."""
    order = ("fail", "warn", "ok")
    listed = sorted(document["findings"], key=lambda finding: order.index(finding["level"]))
    width = max((len(finding["check"]) for finding in listed), default=0)
    lines: list[str] = []
    for finding in listed:
        lines.append(
            f"{finding['level'].ljust(5)} {finding['check'].ljust(width)}  {finding['says']}"
        )
        if finding["level"] == "ok":
            continue
        indent = " " * (width + 8)
        lines.append(f"{indent}{finding['meaning']}")
        lines += [f"{indent}$ {command}" for command in finding["fix"]]
    return "\n".join(lines)
