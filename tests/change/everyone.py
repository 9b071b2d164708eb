# SPDX-License-Identifier: Apache-2.0
"""Pods of two nodes that talk in both directions between the nodes, and on one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from numbered import Stream, Traffic, traffic
from rig import ROUNDS, listen, talk

BYPASSED = {
    ("from_pod", "encapsulated"): 4 * ROUNDS,
    ("from_nic", "decapsulated"): 4 * ROUNDS,
    ("from_pod", "switched"): 2 * ROUNDS,
}
"""What both nodes count of everyone's datagrams and answers, when all is bypassed."""


@contextlib.contextmanager
def everyone(lab: Any) -> Iterator[Traffic]:
    """Everyone's datagrams for a block, each flow approved."""
    with traffic() as made:
        listen(made, lab, "node1-pod1", "node1-pod2", "node2-pod1")
        talk(made, lab, "node1-pod1", "node2-pod1")
        talk(made, lab, "node2-pod2", "node1-pod1")
        talk(made, lab, "node1-pod1", "node1-pod2")
        made.begin()
        yield made


def stream(talks: Traffic, lab: Any, client: str, server: str, **where: int) -> Stream:
    """Have two pods exchange data by TCP, beside the datagrams."""
    return talks.join(Stream(lab.netns(client), lab.netns(server), lab.address(server), **where))
