# SPDX-License-Identifier: Apache-2.0
"""Counts of what has happened, for metrics: kept without prometheus_client, which is 11 MB. Pure.

One thread adds to a count, others may read it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import Enum
from itertools import accumulate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a reconcile that finds nothing to do, to one that makes the entries of 10,000 peers."""


class Withdrawal(Enum):
    """Why all approvals were withdrawn."""

    START = "start"
    """The programs' settings are a new agent's, or new programs'."""
    LAPSE = "lapse"
    """The lease had run out."""
    ASKED = "asked"
    """By a person: `vxlane flows flush`."""
    PEERS = "peers"
    """A peer is another one, or gone."""
    RULES = "rules"
    """Rules changed that packets of pods may meet."""
    ROUTES = "routes"
    """A route, a rule for routes or an address changed."""
    DEVICES = "devices"
    """The overlay's device or a NIC changed."""
    IPSEC = "ipsec"
    """A policy or state of IPsec changed."""
    EVENTS_LOST = "events_lost"
    """More events came than the socket's buffer holds."""


class Histogram:
    """For each bound, the number of observations that were not larger."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count `value`."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[int]:
        """The number of observations up to each bound, and of all."""
        return list(accumulate(self._counts))


class Tally:
    """What has happened since the agent began."""

    def __init__(self) -> None:
        self.withdrawals: Counter[Withdrawal] = Counter()
        self.rule_changes: Counter[bool] = Counter()
        """By whether packets of pods may meet the rules."""
        self.hooks: Counter[tuple[str, str, bool]] = Counter()
        """By program, "attach" or "detach", and whether it could be done."""
        self.reconciles: defaultdict[str, Histogram] = defaultdict(Histogram)
        """Durations in seconds, by what was reconciled."""
