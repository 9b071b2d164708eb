# SPDX-License-Identifier: Apache-2.0
"""The rounds: in each, parity first, then every work on every path of its, in turns.

A path that fails its parity check is not measured in that round, and a measurement whose packets
took another path is no value: both are failures of the run.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vxlane.bench import parity, plan, tracked, witness
from vxlane.bench.awake import kept_awake
from vxlane.bench.grounds import Grounds, Stand
from vxlane.bench.model import Missing, Placement, Row, Taken
from vxlane.bench.plan import Cell, Place
from vxlane.bench.setting import Setting
from vxlane.bench.works import WORKS, Work, figures
from vxlane.errors import LabError, VxlaneError
from vxlane.lab.figure import Figure
from vxlane.lab.waiting import wait_for

_WARM_UP = (plan.TCP_RR, plan.UDP64)
_WARM_UP_SECONDS = 0.2
_PARITY_SECONDS = 5.0


@dataclass(slots=True)
class Findings:
    """What the rounds found."""

    rows: dict[tuple[Cell, str], Row] = field(default_factory=dict)
    """By cell and figure."""
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, cell: Cell, figures: Iterable[Figure], path: str, taken: Taken | None) -> None:
        """One round of a work on one path; None: it has no value."""
        for figure in figures:
            row = self.rows.setdefault(
                (cell, figure.name),
                Row(cell.place.name, cell.work, cell.placement.value, figure),
            )
            row.values.setdefault(path, []).append(taken.values[figure.name] if taken else None)


@dataclass(frozen=True, slots=True)
class Rounds:
    """How the rounds are held."""

    grounds: Grounds
    count: int
    seconds: float
    """Of one measurement."""
    cpus: Sequence[int]
    """The client's, and the server's where the ends are on two."""
    talk: Path
    progress: Callable[[str], None]
    congestion: str | None = None
    """As in a Setting."""

    def hold(self, cells: Sequence[Cell]) -> Findings:
        """Measure all cells in every round."""
        findings = Findings()
        places = list(dict.fromkeys((path, cell.place) for cell in cells for path in cell.paths))
        self.progress("warming up")
        for path, place in places:
            self._warm_up(path, place, cells[0].placement)
        for turn in range(self.count):
            self.progress(f"round {turn + 1} of {self.count}")
            wrong = {}
            for path, place in places:
                if said := self.await_parity(path, place, seconds=_PARITY_SECONDS):
                    wrong[path, place] = said
                    findings.failures.append(f"round {turn + 1}: {place.name}, {path}: {said}")
            for cell in cells:
                for path in plan.order(cell.paths, turn):
                    taken = None
                    try:
                        if (path, cell.place) not in wrong:
                            taken = self._take(cell, path, findings)
                    except VxlaneError as error:
                        where = f"{cell.place.name}, {cell.work}, {cell.placement.value}, {path}"
                        findings.failures.append(f"round {turn + 1}: {where}: {error}")
                    ends = self.grounds.stand(path, cell.place).ends
                    found = figures(WORKS[cell.work], cell.placement, ends)
                    findings.add(cell, found, path, taken)
        return findings

    def _warm_up(self, path: str, place: Place, placement: Placement) -> None:
        """Addresses are resolved, caches filled. What fails here fails in the rounds too."""
        for work in _WARM_UP:
            setting = replace(self.setting(path, place, placement), seconds=_WARM_UP_SECONDS)
            try:
                WORKS[work].run(setting)
            except VxlaneError:
                return

    def await_parity(self, path: str, place: Place, *, seconds: float) -> str:
        """Empty once the path is right; else the last complaint. Rules or peers that have just
        changed are read within seconds.
        """
        stand, complaints = self.grounds.stand(path, place), [""]

        def is_right() -> bool:
            try:
                complaints.append(parity.complaint(stand))
            except VxlaneError as error:  # an end is out of reach
                complaints.append(str(error))
            return not complaints[-1]

        with contextlib.suppress(LabError):
            wait_for(is_right, "parity", seconds=seconds)
        return complaints[-1]

    def _take(self, cell: Cell, path: str, findings: Findings) -> Taken:
        """VxlaneError: it failed, or its packets took another path."""
        stand, work = self.grounds.stand(path, cell.place), WORKS[cell.work]
        before = witness.read(stand.checks)
        tracked.forget(stand.nodes)
        awake = self.cpus if cell.placement is Placement.AWAKE else ()
        with kept_awake(awake, self.talk):
            taken = work.run(self.setting(path, cell.place, cell.placement))
        what = f"{cell.place.name}: {cell.work}, {cell.placement.value}, {path}"
        findings.commands.setdefault(what, taken.commands)
        if said := self._astray(stand, work, before):
            raise LabError(said)
        return taken

    def _astray(self, stand: Stand, work: Work, before: dict[witness.Device, int]) -> str:
        if not work.is_long:
            return ""
        after = witness.read(stand.checks)
        return witness.complaint(stand.checks, before, after, witness.MOST_PAST)

    def setting(self, path: str, place: Place, placement: Placement) -> Setting:
        """Where one measurement runs."""
        stand = self.grounds.stand(path, place)
        cpus = None
        if placement is not Placement.NODES:
            cpus = (self.cpus[0], self.cpus[0 if placement is Placement.ONE else 1])
        return Setting(stand.ends, cpus, self.seconds, self.talk, stand.beside, self.congestion)


def possible(cells: Iterable[Cell], cpus: Sequence[int]) -> tuple[list[Cell], list[Missing]]:
    """The cells that this machine can measure, and what keeps it from the others."""
    kept, missing = [], []
    for cell in cells:
        lacks = [tool for tool in WORKS[cell.work].tools if not shutil.which(tool)]
        if lacks:
            why = f"{' and '.join(lacks)} not installed here; they are packages of the distribution"
            missing.append(Missing(cell.work, why))
        elif cell.placement in {Placement.TWO, Placement.AWAKE} and len(cpus) < 2:
            missing.append(Missing("ends on two CPUs", "this process may run on one CPU only"))
        else:
            kept.append(cell)
    return kept, missing
