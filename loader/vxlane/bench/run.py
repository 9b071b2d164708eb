# SPDX-License-Identifier: Apache-2.0
"""A whole run: labs up, rounds, programs, labs down; the document of what was found."""

from __future__ import annotations

import datetime as dt
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vxlane.bench import document, environment, growth, plan, programs, talk
from vxlane.bench.document import Json
from vxlane.bench.grounds import Given, Labs
from vxlane.bench.model import Missing, Placement
from vxlane.bench.plan import Cell, Depth
from vxlane.bench.rounds import Findings, Rounds, possible
from vxlane.errors import OptionError, VxlaneError

_COUNTED = {
    plan.UDP64: "UDP, 64 B",
    plan.TCP_RR: "TCP request-response",
    plan.CRR: "connect-request-response",
}
"""The works whose packets the programs' costs are told for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for."""

    depth: Depth
    rounds: int
    seconds: float
    works: Sequence[str] = ()
    given: Mapping[str, str] | None = None
    """Path -> CLIENT,SERVER,ADDRESS; None: labs are made."""
    name: str = "bench"


def run(wanted: Wanted, progress: Callable[[str], None]) -> Json:
    """Measure, and answer with the document. VxlaneError: nothing could be measured."""
    began = now()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    described = environment.describe(cpus)
    cells, missing = _cells(wanted, cpus)
    with tempfile.TemporaryDirectory(prefix="vxlane-bench-") as scratch:
        program = talk.build(Path(scratch))
        held: dict[str, Any] = {"cpus": cpus, "talk": program, "progress": progress}
        held |= {"count": wanted.rounds, "seconds": wanted.seconds}
        if wanted.given:
            findings = Rounds(grounds=Given(wanted.given), **held).hold(cells)
            costs: list[Json] = []
        else:
            labs = Labs(wanted.name, progress)
            try:
                missing += labs.make(cells)
                described["wire"] = environment.wire(next(iter(labs.labs.values())).nodes[0].name)
                cells = [*plan.without(cells, [path for path in plan.PATHS if not labs.has(path)])]
                rounds = Rounds(grounds=labs, **held)
                findings = rounds.hold(cells)
                costs = _costs(labs, rounds, findings, wanted)
            finally:
                progress("removing the labs")
                labs.down()
    used = [path for path in plan.PATHS if any(path in cell.paths for cell in cells)]
    return whole(wanted, began, described, used, findings, missing, costs)


def _cells(wanted: Wanted, cpus: Sequence[int]) -> tuple[list[Cell], list[Missing]]:
    """OptionError: nothing is left to measure."""
    if wanted.given:
        planned = plan.given_cells(wanted.depth, list(wanted.given))
    else:
        planned = plan.cells(wanted.depth)
    cells, missing = possible(plan.chosen(planned, wanted.works), cpus)
    need_some(cells, planned)
    return cells, missing


def need_some(cells: Sequence[Cell], planned: Sequence[Cell]) -> None:
    """OptionError: nothing is left to measure of what was planned."""
    if not cells:
        names = ", ".join(dict.fromkeys(cell.work for cell in planned))
        raise OptionError(f"no work that can be measured here has such a name; there are: {names}")


def _costs(labs: Labs, rounds: Rounds, findings: Findings, wanted: Wanted) -> list[Json]:
    """Of each path that has programs. The growth comes last, for it changes the lab."""
    rounds.progress("what the programs cost")
    costs = []
    for path, pinned_in in (("device", programs.of_device), (plan.BYPASS, programs.of_bypass)):
        lab = labs.labs.get((path, 0))
        if lab is None:
            continue
        pinned = pinned_in(lab)
        setting = rounds.setting(path, plan.BETWEEN, Placement.ONE)
        try:
            costs += programs.under_load(pinned, _COUNTED, setting)
            costs += programs.alone(pinned)
            if path == plan.BYPASS and wanted.depth is Depth.FULL and not wanted.works:
                ready = partial(
                    rounds.await_parity, path, plan.BETWEEN, seconds=growth.READY_SECONDS
                )
                costs += growth.costs(lab, setting, ready, rounds.progress)
        except VxlaneError as error:
            findings.failures.append(f"what the programs of {path} cost: {error}")
    return costs


def now() -> str:
    """The time, as documents have it."""
    told = dt.datetime.now(dt.timezone.utc).isoformat(sep=" ", timespec="minutes")
    return f"{told.removesuffix('+00:00')} UTC"


def whole(
    wanted: Wanted,
    began: str,
    described: Mapping[str, str],
    paths: Sequence[str],
    findings: Findings,
    missing: Sequence[Missing],
    costs: Sequence[Json] = (),
) -> Json:
    """The document of a run."""
    rows = [document.row_document(row) for row in findings.rows.values()]
    return {
        "version": document.VERSION,
        "began": began,
        "command": ["vxlane", *sys.argv[1:]],
        "environment": dict(described),
        "method": {"rounds": wanted.rounds, "seconds": wanted.seconds, "depth": wanted.depth.value},
        "paths": {path: plan.PATHS[path] for path in paths},
        "rows": rows,
        "programs": list(costs),
        "not_run": document.missing_documents(missing),
        "commands": {what: list(lines) for what, lines in findings.commands.items()},
        "failures": [*findings.failures, *document.slower(rows)],
    }
