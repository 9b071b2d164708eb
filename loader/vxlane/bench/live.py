# SPDX-License-Identifier: Apache-2.0
"""`vxlane bench --between`: the bypass against the kernel path, between probe pods of two nodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from vxlane.bench import environment, far_end, live_paths, live_works, parity, plan, talk
from vxlane.bench.document import Json
from vxlane.bench.ends import in_namespaces
from vxlane.bench.far_end import Counts
from vxlane.bench.grounds import Stand, mtu
from vxlane.bench.live_paths import Pods, Reading
from vxlane.bench.live_works import Pair
from vxlane.bench.model import Missing, Taken
from vxlane.bench.plan import BYPASS, KERNEL, Cell
from vxlane.bench.rounds import Findings
from vxlane.bench.run import Wanted, need_some, now, whole
from vxlane.bench.works import WORKS
from vxlane.connectivity.pod import ProbePod, why_not_added
from vxlane.datapath.maps import Maps
from vxlane.errors import VxlaneError
from vxlane.show.node import open_maps
from vxlane.util import scratch

_NEED_IPERF3 = (plan.TCP1, plan.TCP8)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """How the rounds are held."""

    pods: Pods
    pairs: Mapping[str, Pair]
    """By path."""
    maps: Maps
    slot: int

    def check(self) -> None:
        """VxlaneError: a path does not carry pings of full size."""
        for path, pair in self.pairs.items():
            pod, address = str(pair.pod), pair.address
            ends = in_namespaces(pod, "", address)
            stand = Stand(ends, address, mtu(ends.source, address), cutting=[ends.source])
            if said := parity.complaint(stand):
                raise VxlaneError(f"{path}: {said}; see: vxlane test --help")

    def hold(self, cells: Sequence[Cell], turn: int, findings: Findings) -> None:
        """Measure all cells once on both paths."""
        for cell in cells:
            for path in plan.order(cell.paths, turn):
                taken = None
                try:
                    taken = self._take(cell, path, findings)
                except VxlaneError as error:
                    where = f"round {turn + 1}: {cell.place.name}, {cell.work}, {path}"
                    findings.failures.append(f"{where}: {error}")
                findings.add(cell, live_works.figures(cell.work), path, taken)

    def _take(self, cell: Cell, path: str, findings: Findings) -> Taken:
        before = self._read(path)
        taken = live_works.take(cell.work, self.pairs[path])
        after = self._read(path)
        what = f"{cell.place.name}: {cell.work}, {cell.placement.value}, {path}"
        findings.commands.setdefault(what, taken.commands)
        is_long = WORKS[cell.work].is_long
        if said := live_paths.complaint(path, before, after, is_long=is_long):
            raise VxlaneError(said)
        return taken

    def _read(self, path: str) -> Reading:
        far = self.pairs[path].far()
        there = far.passed_in if path == KERNEL or far.is_accelerated else 0
        return live_paths.read(self.pods[path], self.maps, self.slot, there)


def run(
    wanted: Wanted,
    pods: Mapping[str, ProbePod],
    address: IPv4Address,
    state: Path,
    progress: Callable[[str], None],
) -> Json:
    """Measure from this node's `pods` to the far end at `address`; the document, as of any run.

    VxlaneError: nothing could be measured.
    """
    began, findings = now(), Findings()
    with open_maps(state) as maps, scratch.directory("bench") as made:
        here = live_paths.ends(pods, maps)
        if not here[BYPASS].is_accelerated:
            raise VxlaneError(why_not_added(state))
        asked = str(address)
        slot = live_paths.slot_of(asked, maps)
        far = far_end.ask(pods[KERNEL].netns, asked)
        cells, missing = _cells(wanted, has_iperf3=far[BYPASS].has_iperf3)
        program = talk.build(made)
        pairs = {
            path: _pair(wanted, path, here=here, far=far, asked=asked, program=program)
            for path in live_paths.PATHS
        }
        rounds = _Rounds(here, pairs, maps, slot)
        rounds.check()
        for turn in range(wanted.rounds):
            progress(f"round {turn + 1} of {wanted.rounds}")
            rounds.hold(cells, turn, findings)
    described = environment.describe([], wanted.congestion) | {
        f"ends of {path}": f"{pods[path].address} and {far[path].address}" for path in pairs
    }
    return whole(wanted, began, described, list(pairs), findings, missing)


def _pair(
    wanted: Wanted, path: str, *, here: Pods, far: Mapping[str, Counts], asked: str, program: Path
) -> Pair:
    return Pair(
        path=path,
        here=here,
        address=far[path].address,
        asked=asked,
        seconds=wanted.seconds,
        talk=program,
        congestion=wanted.congestion,
    )


def _cells(wanted: Wanted, *, has_iperf3: bool) -> tuple[list[Cell], list[Missing]]:
    """What both ends can measure. ConfigError: nothing of that was asked for."""
    planned = plan.live_cells(wanted.depth)
    cells = plan.chosen(planned, wanted.works)
    lacks = " and ".join(
        place
        for place, has in (("here", shutil.which("iperf3")), ("at the far end", has_iperf3))
        if not has
    )
    missing = [
        Missing(cell.work, f"iperf3 is not installed {lacks}")
        for cell in cells
        if lacks and cell.work in _NEED_IPERF3
    ]
    left_out = [one.what for one in missing]
    cells = [cell for cell in cells if cell.work not in left_out]
    need_some(cells, [cell.work for cell in planned], missing)
    return cells, missing
