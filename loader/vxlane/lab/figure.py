# SPDX-License-Identifier: Apache-2.0
"""A number that a measurement yields, and which of two such numbers is the good one. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Better(enum.Enum):
    """Which of two figures is the good one."""

    MORE = "more"
    LESS = "less"
    NEITHER = "neither"
    """Shown for what it explains; paths are not compared by it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured."""

    name: str
    unit: str
    better: Better
