# SPDX-License-Identifier: Apache-2.0
"""The works between pods of two nodes that run: those that need no more than these two ends.

Their figures are those of `works.py`, without CPU time: it would be that of one node, and of all
that runs there.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vxlane.bench import far_end, plan, talk
from vxlane.bench.far_end import Counts
from vxlane.bench.live_paths import Pods
from vxlane.bench.model import Taken
from vxlane.bench.plan import KERNEL
from vxlane.bench.setting import PORTS
from vxlane.bench.works import WORKS, asked_values, bulk_client, poured_values, received_of
from vxlane.lab import namespaces
from vxlane.lab.figure import Figure
from vxlane.lab.traffic import MORTAL

_PATIENCE = 30.0
_PORTS = itertools.cycle(far_end.TALK[::PORTS])


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of one path, and for how many seconds they talk."""

    path: str
    here: Pods
    address: str
    """The server's."""
    asked: str
    """The address that tells what the far end has counted."""
    seconds: float
    talk: Path
    """The compiled program."""
    congestion: str | None
    """As in a Setting."""

    @property
    def pod(self) -> Path:
        """The client's network namespace."""
        return self.here[self.path].pod.netns

    def far(self) -> Counts:
        """What the server's pod has counted. VxlaneError: it does not answer."""
        return far_end.ask(self.here[KERNEL].pod.netns, self.asked)[self.path]

    def run(self, *argv: str) -> tuple[str, str]:
        """Run a client to its end: what it printed, and the command line. LabError: it failed."""
        patience = self.seconds + _PATIENCE
        done = namespaces.run(str(self.pod), *MORTAL, *argv, timeout=patience)
        return done.stdout, shlex.join(namespaces.inside(str(self.pod), argv))


def figures(work: str) -> list[Figure]:
    """What a work yields here."""
    return [
        figure
        for figure in WORKS[work].figures
        if "CPU" not in figure.name + figure.unit and "softirq" not in figure.name
    ]


def take(work: str, pair: Pair) -> Taken:
    """Measure once. VxlaneError: the traffic failed."""
    return _RUN[work](pair)


def _bulk(flows: int, pair: Pair) -> Taken:
    said, command = pair.run(
        *bulk_client(pair.address, str(far_end.IPERF3), flows, pair.seconds, pair.congestion)
    )
    return Taken({"throughput": received_of(said)["bits_per_second"] / 1e9}, (command,))


def _asked(what: str, pair: Pair, *more: str) -> Taken:
    said, command = _talk(pair, what, *more)
    count, *times = talk.parse(said)
    return Taken(asked_values(count, times, pair.seconds), (command,))


def _poured(size: int, pair: Pair) -> Taken:
    """On the kernel path the few packets of a question are among those that arrived."""
    before = pair.far()
    said, command = _talk(pair, "pour", str(size), "0")
    after = pair.far()
    (sent,) = talk.parse(said)
    arrived, dropped = after.arrived - before.arrived, after.dropped - before.dropped
    return Taken(poured_values(sent, arrived, dropped, pair.seconds), (command,))


def _talk(pair: Pair, what: str, *more: str) -> tuple[str, str]:
    place = (pair.address, str(next(_PORTS)), f"{pair.seconds:g}")
    return pair.run(str(pair.talk), what, *place, *more)


_RUN: dict[str, Callable[[Pair], Taken]] = {
    plan.TCP1: partial(_bulk, 1),
    plan.TCP8: partial(_bulk, 8),
    plan.UDP64: partial(_poured, 64),
    plan.UDP512: partial(_poured, 512),
    plan.UDP1380: partial(_poured, 1380),
    plan.TCP_RR: partial(_asked, "tcp"),
    plan.UDP_RR: partial(_asked, "udp"),
    plan.CRR: lambda pair: _asked("connect", pair, str(PORTS)),
}
