# SPDX-License-Identifier: Apache-2.0
"""What is measured and what was found, as plain data. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from vxlane.lab.figure import Better, Figure


class Placement(enum.Enum):
    """Where the two ends of a measurement run."""

    ONE = "one CPU"
    TWO = "two CPUs"
    AWAKE = "two CPUs, awake"
    """Neither halts, see awake.py."""
    NODES = "two nodes"


RATE = Figure("rate", "k/s", Better.MORE)
P50, P99 = Figure("p50", "us", Better.LESS), Figure("p99", "us", Better.LESS)
CPU_EACH = Figure("CPU per transaction", "us", Better.LESS)
SOFTIRQ_EACH = Figure("softirq per transaction", "us", Better.LESS)
"""Figures that several kinds of works have."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One measurement: a value for each figure, and the command lines that made them."""

    values: Mapping[str, float]
    commands: tuple[str, ...]


@dataclass(slots=True)
class Row:
    """All rounds of one figure at one place, by path. None: that round has no value."""

    place: str
    work: str
    placement: str
    figure: Figure
    values: dict[str, list[float | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """What was asked for and not measured."""

    what: str
    why: str
