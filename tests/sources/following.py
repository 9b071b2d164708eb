# SPDX-License-Identifier: Apache-2.0
"""Waiting for what a source says."""

import select
import time
from collections.abc import Callable
from typing import Any

from vxlane.sources.follow import Timing
from vxlane.sources.snapshot import NodeSource, Snapshot

QUICK = Timing(shortest=0.05, longest=0.2, timeout=2.0, silence=1.0)


def wait_for(
    source: NodeSource, wanted: Callable[[Snapshot], Any], *, within: float = 5.0
) -> Snapshot:
    """The first snapshot that is as `wanted`."""
    end = time.monotonic() + within
    while not wanted(snapshot := source.nodes()):
        left = end - time.monotonic()
        assert left > 0, f"never came: {snapshot}"
        select.select([source.changed], [], [], min(left, 0.05))
    return snapshot


def peers(snapshot: Snapshot) -> set[str]:
    """The names of the peers."""
    return {node.name for node in snapshot.peers}


def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "never came"
        time.sleep(0.01)
