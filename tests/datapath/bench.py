# SPDX-License-Identifier: Apache-2.0
"""Bench: the four programs of one build, loaded once, and what a run of one of them moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testrun import Runner

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import (
    Constants,
    ensure_loaded,
    pin_directory,
)
from vxlane.datapath.records import Count, PeerCount


class Moved:
    """What counters moved while a `with bench.counting()` stood open, filled in at its end."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[Program, Verdict], Count] = {}
        self.peers: dict[int, PeerCount] = {}

    @property
    def packets(self) -> dict[tuple[Program, Verdict], int]:
        """The packets alone."""
        return {key: count.packets for key, count in self.verdicts.items()}


class Bench:
    """Programs and maps below `state`; made inside a chamber, which holds the mount."""

    def __init__(self, state: Path, constants: Constants) -> None:
        self.state, self.constants = state, constants
        self.pins = pin_directory(state)
        self.report = ensure_loaded(state, constants)
        self.maps = Maps.open(self.pins)
        self.runners = {program: Runner(self.pins / program.label) for program in Program}

    @contextmanager
    def counting(self) -> Iterator[Moved]:
        """Count inside the block, by verdict and by the peers that are known all the time."""
        moved = Moved()
        verdicts, peers = self._verdicts(), self.maps.peer_counts()
        yield moved
        for key, after in self._verdicts().items():
            before = verdicts[key]
            if after != before:
                moved.verdicts[key] = Count(
                    after.packets - before.packets, after.bytes - before.bytes
                )
        for slot, count in self.maps.peer_counts().items():
            if slot in peers and count != peers[slot]:
                moved.peers[slot] = _minus(count, peers[slot])

    def _verdicts(self) -> dict[tuple[Program, Verdict], Count]:
        return {
            (program, verdict): count
            for program, counts in self.maps.counters().items()
            for verdict, count in counts.items()
        }


def _minus(one: PeerCount, other: PeerCount) -> PeerCount:
    return PeerCount(
        one.tx_packets - other.tx_packets,
        one.tx_bytes - other.tx_bytes,
        one.rx_packets - other.rx_packets,
        one.rx_bytes - other.rx_bytes,
    )
