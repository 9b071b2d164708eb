# SPDX-License-Identifier: Apache-2.0
"""What is to be compared again, in a word."""

from __future__ import annotations

import pytest

from vxlane.util.dirty import ALL, Dirty


@pytest.mark.parametrize(
    ("dirty", "label"),
    [
        (Dirty.NODES, "nodes"),
        (Dirty.MAPS, "maps"),
        (Dirty.NODES | Dirty.HOST, "several"),
        (ALL, "all"),
        (Dirty(0), "several"),
    ],
)
def test_a_label_is_one_of_few(dirty: Dirty, label: str) -> None:
    """A part's own name, or how many: a name for each combination would be 127."""
    assert dirty.label == label
