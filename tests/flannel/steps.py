# SPDX-License-Identifier: Apache-2.0
"""Steps under traffic: what each flow sent and lost in each, a control flow's numbers beside them.

Datagrams in both directions between each two pods that talk, each with an answer that counts, and
a checked TCP stream. A datagram is lost when no answer came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster import Cluster
from numbered import Listener, Stream, Talk, Traffic, machine_drops, traffic


@dataclass(frozen=True)
class Count:
    """What was sent and lost in one step."""

    step: str
    sent: int
    lost: int
    control_sent: int
    control_lost: int
    """Between two nodes that were not touched."""

    def __str__(self) -> str:
        return (
            f"{self.step}: {self.lost} of {self.sent} lost, "
            f"control {self.control_lost} of {self.control_sent}"
        )


class Steps:
    """Flows between pairs of pods; the last pair is the control."""

    def __init__(self, cluster: Cluster, made: Traffic, pairs: list[tuple[str, str]]) -> None:
        self.counts: list[Count] = []
        self._cluster = cluster
        self._traffic = made
        for pod in {pod for pair in pairs for pod in pair}:
            made.join(Listener(cluster.netns(pod), pod))
        talks = [talk for pair in pairs for talk in (self._talk(*pair), self._talk(*pair[::-1]))]
        self._touched, self._control = talks[:-2], talks[-2:]
        self._streams = [self._stream(*pair, port=7300 + n) for n, pair in enumerate(pairs)]
        made.begin()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what is sent during the block, and for a hundred answers of each flow after it."""
        for one in self._traffic.speakers:
            one.begin()
        before, dropped = self._sent(), machine_drops()
        self._traffic.start()
        yield
        self._traffic.go_on(100)
        self._traffic.stop()
        sent, control = (after - then for after, then in zip(self._sent(), before, strict=True))
        # Packets that the machine's CPUs dropped are no node's fault.
        forgiven = machine_drops() - dropped
        lost = max(0, sum(one.owed for one in self._touched) - forgiven)
        control_lost = max(0, sum(one.owed for one in self._control) - forgiven)
        self.counts.append(Count(name, sent, lost, control, control_lost))
        print(self.counts[-1])

    @property
    def faults(self) -> list[str]:
        """Of the TCP streams."""
        return self._traffic.faults

    @property
    def lost(self) -> list[str]:
        """The steps that lost something, the control's losses too, in words."""
        return [str(count) for count in self.counts if count.lost or count.control_lost]

    def _sent(self) -> tuple[int, int]:
        return sum(it.sent for it in self._touched), sum(it.sent for it in self._control)

    def _talk(self, client: str, server: str) -> Talk:
        cluster = self._cluster
        return self._traffic.join(Talk(cluster.netns(client), cluster.address(server)))

    def _stream(self, client: str, server: str, *, port: int) -> Stream:
        ends = self._cluster.netns(client), self._cluster.netns(server)
        return self._traffic.join(Stream(*ends, self._cluster.address(server), port=port))


@dataclass(frozen=True)
class Silence:
    """The longest time without an answer while something changed, in seconds."""

    bypassed: float
    by_kernel: float
    control_lost: int
    """Of the flow between two nodes that were not touched."""


def silence(cluster: Cluster, change: Callable[[], None]) -> Silence:
    """Let node1, whose agent bypasses, and node3, which has none, send to node2 during `change`;
    node3 and node4 are the control.
    """
    with traffic(pause=0.01) as made:
        for name in ("node2-pod1", "node4-pod1"):
            made.join(Listener(cluster.netns(name), name))
        ends = ("node1", "node2"), ("node3", "node2"), ("node3", "node4")
        talks = [
            made.join(Talk(cluster.netns(f"{a}-pod1"), cluster.address(f"{b}-pod1")))
            for a, b in ends
        ]
        made.begin()
        with cluster.verdicts("node1") as moved:
            made.exchange(50)
        assert moved["from_pod", "encapsulated"] >= 50
        made.begin()
        made.start()
        change()
        made.go_on(50)
        bypassed, by_kernel, _ = (talk.silence for talk in talks)
        made.stop()
        seen = Silence(bypassed, by_kernel, talks[2].owed)
        print(seen)
        return seen


@contextlib.contextmanager
def steps(cluster: Cluster, *pairs: tuple[str, str]) -> Iterator[Steps]:
    """Flows for a block; node1's pod and node2's, and as the control node3's and node4's."""
    usual = [("node1-pod1", "node2-pod1"), *pairs, ("node3-pod1", "node4-pod1")]
    with traffic() as made:
        yield Steps(cluster, made, usual)
