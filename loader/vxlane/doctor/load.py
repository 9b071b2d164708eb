# SPDX-License-Identifier: Apache-2.0
"""What a node carried in a span of time, and whether a later span was worse. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields

_ENOUGH = 10_000_000
"""Bytes. With less in a span its cost for each byte, and its rate, tell nothing."""
_COSTLIER, _FELL = 1.25, 0.5
"""Ratios. Live traffic varies by itself, so less than that is no sign."""
_STRAYS = 10
"""Packets that may be lost in any span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Counters at one moment."""

    seconds: float
    packets: int
    """Of the NIC, both directions."""
    octets: int
    lost: int
    """Packets that were dropped by NIC, backlog or conntrack, or came broken."""
    invalid: int
    """Packets that conntrack called INVALID."""
    kernel_seconds: float
    """CPU time in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Reading):
    """What happened between two readings: the growth of each counter."""

    @property
    def is_enough(self) -> bool:
        """Whether so much was carried that it can be judged."""
        return self.octets >= _ENOUGH

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.octets / self.seconds

    @property
    def cost(self) -> float:
        """CPU time in the kernel for each byte, in ns."""
        return 1e9 * self.kernel_seconds / self.octets if self.octets else 0.0


def between(first: Reading, last: Reading) -> Load:
    """What happened from `first` to `last`."""
    grown = {
        field.name: getattr(last, field.name) - getattr(first, field.name)
        for field in fields(Reading)
    }
    return Load(**grown)


def worse(before: Load, after: Load) -> str:
    """How `after` is clearly worse than `before`, as a sentence; empty: it is not."""
    for name in ("lost", "invalid"):
        was, now = getattr(before, name), getattr(after, name)
        share = was / max(1, before.packets)
        if now > _STRAYS + 2 * share * after.packets:
            return f"{now} packets were {name}, and {was} before"
    if not before.is_enough:
        return ""
    if after.rate < _FELL * before.rate:
        return f"traffic fell from {_megabytes(before)} to {_megabytes(after)} MB/s"
    if after.is_enough and after.cost > _COSTLIER * before.cost:
        return f"a byte took {after.cost:.2f} ns of the kernel's time, and {before.cost:.2f} before"
    return ""


def _megabytes(load: Load) -> str:
    return f"{load.rate / 1e6:.1f}"
