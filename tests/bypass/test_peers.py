# SPDX-License-Identifier: Apache-2.0
"""Slots of peers in the counters' map."""

from __future__ import annotations

from vxlane.bypass.peers import Slots


def test_slots_are_used_again_as_late_as_can_be() -> None:
    """A freed slot is the last to be taken, and a full map has none."""
    slots = Slots([0, 2], capacity=4)
    assert (slots.take(), slots.take(), slots.take()) == (1, 3, None)
    slots.give_back(2)
    slots.give_back(0)
    assert (slots.take(), slots.take(), slots.take()) == (2, 0, None)
