# SPDX-License-Identifier: Apache-2.0
"""The bypass and the kernel path abreast: the same traffic by both, while the network changes.

What the kernel path loses in a change may be lost; the bypass has to be back with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numbered import Talk, Traffic, traffic
from rig import ROUNDS, attach, counted, listen, talk

BOTH_WAYS = {
    ("from_pod", "encapsulated"): 4 * ROUNDS,
    ("from_nic", "decapsulated"): 4 * ROUNDS,
    # What nobody told the agents of.
    ("from_nic", "no_pod"): 4 * ROUNDS,
}
"""What both nodes count of datagrams and answers from each node to the other, by either path."""


class Abreast:
    """Pods 1 talk by the bypass, pods 2, of which no agent knows, by the kernel path."""

    def __init__(self, lab: Any, traffic: Traffic) -> None:
        self.lab = lab
        self.traffic = traffic
        listen(traffic, lab, *(f"{node}-pod{n}" for node in ("node1", "node2") for n in (1, 2)))
        self.bypassed = self._between("pod1")
        self.by_kernel = self._between("pod2")

    def _between(self, pod: str) -> list[Talk]:
        ends = f"node1-{pod}", f"node2-{pod}"
        return [talk(self.traffic, self.lab, *ends), talk(self.traffic, self.lab, *reversed(ends))]

    def survive(self, change: Callable[[], None]) -> None:
        """Change the network under traffic; both paths go on, the bypass not a second later.

        After that each packet is bypassed again, or not, as before.
        """
        self.traffic.begin()
        self.traffic.start()
        change()
        self.traffic.go_on()
        bypassed, by_kernel = (
            max(one.silence for one in talks) for talks in (self.bypassed, self.by_kernel)
        )
        assert bypassed < by_kernel + 1.0
        self.traffic.begin()
        self.assert_both_work()

    def assert_both_work(self) -> None:
        """A round of traffic arrives, each by its path."""
        with self.lab.verdicts("node1", "node2") as seen:
            self.traffic.exchange(ROUNDS)
        assert self.traffic.lost == 0
        assert counted(seen) == BOTH_WAYS


@contextlib.contextmanager
def abreast(lab: Any) -> Iterator[Abreast]:
    """Traffic by both paths for a block."""
    strangers = {node: lab.netns(f"{node}-pod2") for node in ("node1", "node2")}
    for node, stranger in strangers.items():
        lab.ask(node, op="remove", container_id=stranger, ifname="eth0")
    try:
        with traffic() as made:
            yield Abreast(lab, made)
    finally:
        for node, stranger in strangers.items():
            attach(lab, node, stranger)
