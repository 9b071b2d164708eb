# SPDX-License-Identifier: Apache-2.0
"""The source of an agent whose peers the kernel's own entries name."""

from __future__ import annotations

import os
import select

import pytest

from vxlane.sources.none import NoSource


def test_it_is_always_right_and_never_changes() -> None:
    """It has read its set, which is empty and without problems, and its descriptor stays quiet."""
    source = NoSource()
    source.start()
    snapshot = source.nodes()
    assert (snapshot.own, snapshot.peers, snapshot.problems, snapshot.error) == (None, (), (), "")
    assert snapshot.read_at is not None
    assert select.select([source.changed], [], [], 0)[0] == []
    assert source.on_event() is False
    source.close()


def test_closing_closes_the_descriptor_once() -> None:
    """It is closed, and forgotten: a second close can't meet another's of the same number."""
    source = NoSource()
    source.start()
    number = source.changed
    source.close()
    assert source.changed == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    source.close()
