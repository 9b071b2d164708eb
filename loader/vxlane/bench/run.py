# SPDX-License-Identifier: Apache-2.0
"""A whole run: labs up, rounds, programs, labs down; the document of what was found."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from vxlane.bench import document, environment, flatness, given, growth, plan, programs, talk
from vxlane.bench.document import Json
from vxlane.bench.given import Names
from vxlane.bench.grounds import Given, Labs, lab_names
from vxlane.bench.model import Missing, Placement
from vxlane.bench.plan import Cell, Depth
from vxlane.bench.rounds import Findings, Rounds, possible
from vxlane.errors import OptionError, VxlaneError
from vxlane.lab import lab as labs
from vxlane.lab.plan import check_name
from vxlane.util import scratch

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
    given: Mapping[str, Names] | None = None
    """By path; None: labs are made."""
    name: str = "bench"
    congestion: str | None = None
    """As in a Setting."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether all ends are on hosts, so that nothing is entered or made here."""
        given = (self.given or {}).values()
        return bool(given) and all(names.are_hosts for names in given)


@dataclass(slots=True)
class _Measured:
    """What the rounds yielded."""

    cells: Sequence[Cell]
    findings: Findings
    missing: list[Missing]
    described: dict[str, str]
    """What belongs to the environment."""
    costs: list[Json] = field(default_factory=list)


def run(wanted: Wanted, progress: Callable[[str], None]) -> Json:
    """Measure, and answer with the document. VxlaneError: nothing could be measured."""
    began = now()
    cpus = sorted(os.sched_getaffinity(0))[:2]
    described = environment.describe(cpus, wanted.congestion)
    cells, missing = _cells(wanted, cpus)
    measured, grown = _Measured([], Findings(), [], {}), list[Json]()
    with (
        contextlib.nullcontext() if wanted.given else _sole(wanted.name),
        scratch.directory("bench") as made,
    ):
        make_rounds = partial(
            Rounds,
            count=wanted.rounds,
            seconds=wanted.seconds,
            cpus=cpus,
            talk=talk.build(made),
            progress=progress,
            congestion=wanted.congestion,
        )
        if wanted.given:
            measured = _at_given_ends(wanted.given, cells, make_rounds)
        elif cells:
            measured = _in_labs(wanted.name, cells, make_rounds)
        if _grows(wanted):
            grown = _grown(wanted.name, make_rounds, measured)
    missing += measured.missing
    described |= measured.described
    used = [path for path in plan.PATHS if any(path in cell.paths for cell in measured.cells)]
    found = whole(wanted, began, described, used, measured.findings, missing, measured.costs)
    return found | {"growth": grown}


@contextlib.contextmanager
def _sole(name: str) -> Iterator[None]:
    """Within the block this run has the name, and nothing is left of a killed one.

    OptionError: with it a lab's name would be too long. LabError: another run has it.
    """
    ours = {check_name(one) for one in (*lab_names(name), *growth.names(name))}
    with labs.held(name):
        for left in ours.intersection(labs.names()):
            labs.down(left)
        yield


def _at_given_ends(
    names: Mapping[str, Names], planned: Sequence[Cell], make_rounds: partial[Rounds]
) -> _Measured:
    """VxlaneError: a host can't be reached, or can measure nothing of this."""
    with given.reached(names, make_rounds.keywords["talk"]) as ends:
        cells, missing = given.possible(planned, ends)
        need_some(cells, (), missing)
        described = given.described(ends)
        findings = make_rounds(grounds=Given(ends)).hold(cells)
        return _Measured(cells, findings, missing, described)


def _in_labs(name: str, cells: Sequence[Cell], make_rounds: partial[Rounds]) -> _Measured:
    """Labs are made, measured, and removed."""
    progress = make_rounds.keywords["progress"]
    grounds = Labs(name, progress)
    try:
        missing = grounds.make(cells)
        wire = environment.wire(next(iter(grounds.labs.values())).nodes[0].name)
        cells = [*plan.without(cells, [path for path in plan.PATHS if not grounds.has(path)])]
        rounds = make_rounds(grounds=grounds)
        findings = rounds.hold(cells)
        costs = _costs(grounds, rounds, findings)
        return _Measured(cells, findings, missing, {"wire": wire}, costs)
    finally:
        progress("removing the labs")
        grounds.down()


def _grows(wanted: Wanted) -> bool:
    return not wanted.given and plan.grows(wanted.depth, wanted.works)


def _grown(name: str, make_rounds: partial[Rounds], measured: _Measured) -> list[Json]:
    """What grew; a failure costs no other result."""
    try:
        found, missing = growth.measure(name, make_rounds, make_rounds.keywords["progress"])
    except VxlaneError as error:
        measured.findings.failures.append(f"{plan.GROWTH}: {error}")
        return []
    measured.missing += missing
    measured.findings.failures += flatness.failures(found)
    return found


def _cells(wanted: Wanted, cpus: Sequence[int]) -> tuple[list[Cell], list[Missing]]:
    """OptionError: nothing is left to measure."""
    if wanted.given:
        on_hosts = any(names.hosts for names in wanted.given.values())
        planned = plan.given_cells(wanted.depth, list(wanted.given), on_hosts=on_hosts)
    else:
        planned = plan.cells(wanted.depth)
    cells, missing = possible(plan.chosen(planned, wanted.works), cpus)
    if not _grows(wanted):
        names = [cell.work for cell in planned]
        if not wanted.given and plan.grows(wanted.depth, ()):
            names.append(plan.GROWTH)
        need_some(cells, names, missing)
    return cells, missing


def need_some(cells: Sequence[Cell], names: Iterable[str], missing: Sequence[Missing]) -> None:
    """OptionError: nothing is left to measure, for it is all missing, or is none of these names."""
    if cells:
        return
    if missing:
        whys = "; ".join(f"{one.what}: {one.why}" for one in dict.fromkeys(missing))
        raise OptionError(f"nothing of that can be measured. {whys}")
    # The names have commas.
    there_are = "; ".join(dict.fromkeys(names))
    raise OptionError(f"no workload here has such a name; there are: {there_are}")


def _costs(grounds: Labs, rounds: Rounds, findings: Findings) -> list[Json]:
    """Of each path that has programs."""
    rounds.progress("what the programs cost")
    costs = []
    for path in (*plan.OTHER_PROGRAMS, plan.BYPASS):
        lab = grounds.labs.get((path, 0))
        if lab is None:
            continue
        is_ours = path == plan.BYPASS
        pinned = programs.of_bypass(lab) if is_ours else programs.of_others(lab, path)
        setting = rounds.setting(path, plan.BETWEEN, Placement.ONE)
        try:
            costs += programs.under_load(pinned, _COUNTED, setting)
            costs += programs.alone(pinned)
            if is_ours:
                costs += programs.bypassed(lab, setting)
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
        "growth": [],
        "not_run": document.missing_documents(missing),
        "commands": {what: list(lines) for what, lines in findings.commands.items()},
        "failures": [*findings.failures, *document.slower(rows)],
    }
