# SPDX-License-Identifier: Apache-2.0
"""What came and went between two sequences, however they were shuffled."""

from __future__ import annotations

import random

from vxlane.util.difference import difference


class Thing:
    """Equal to all others: only identity tells them apart."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def test_difference_is_by_identity_whatever_the_order():
    """The same as looking for each object in the other sequence, in the sequence's own order."""
    chance = random.Random(1)
    things = [Thing() for _ in range(12)]
    for _ in range(2000):
        before = chance.sample(things, chance.randrange(13))
        after = chance.sample(things, chance.randrange(13))
        if chance.random() < 0.5:
            after = [chance.choice(things) if chance.random() < 0.2 else a for a in before]
            after = list({id(thing): thing for thing in after}.values())
        gone, come = difference(before, after)
        assert list(map(id, gone)) == [id(b) for b in before if not any(b is a for a in after)]
        assert list(map(id, come)) == [id(a) for a in after if not any(b is a for b in before)]
