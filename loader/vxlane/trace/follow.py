# SPDX-License-Identifier: Apache-2.0
"""From a session to whoever takes its events, until there are enough or it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vxlane.trace.event import Event
from vxlane.trace.session import Session


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a look ended."""

    taken: int
    """Packets that were handed over."""
    lost: int
    """Packets that found no room in the buffer."""
    unseen: float
    """Seconds in which packets were not seen, since this process was stopped."""
    stepped: float = 0.0
    """Seconds by which the clock was set meanwhile, which times do not follow."""
    is_cut_short: bool = False
    """Whether this node's programs were replaced or removed meanwhile."""


def follow(session: Session, take: Callable[[Iterable[Event]], None], count: int | None) -> Outcome:
    """Hand batches of events to `take`, `count` in all, or until the session is stopped or over."""
    taken = 0

    def hand_over(events: list[Event]) -> bool:
        nonlocal taken
        wanted = events if count is None else events[: count - taken]
        taken += len(wanted)
        take(wanted)
        return count is not None and taken >= count

    is_enough = any(hand_over(batch) for batch in session.batches())
    rest = session.end()
    if not is_enough:
        hand_over(rest)
    is_cut_short = session.is_over and not is_enough
    return Outcome(taken, session.lost, session.unseen, session.stepped, is_cut_short)
