# SPDX-License-Identifier: Apache-2.0
"""`vxlane doctor`: looks at the node as an expert does."""

from __future__ import annotations

from pathlib import Path

import click

from vxlane.cli.common import (
    PathName,
    as_json,
    emit,
    examples,
    need_plain,
    need_root,
    need_writable,
)
from vxlane.doctor import trial
from vxlane.doctor.bundle import write
from vxlane.doctor.examine import examine, try_fix
from vxlane.doctor.findings import Level, document, text, worst
from vxlane.errors import ConfigError
from vxlane.util import interrupt
from vxlane.util.places import state_directory


@click.command(
    epilog=examples(
        "vxlane doctor",
        "vxlane doctor --json | jq -r '.findings[].fix[]'",
        "vxlane doctor --bundle /tmp/report.tar.gz",
        "vxlane doctor --try offloads",
    )
)
@as_json
@click.option(
    "--bundle",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Also write a .tar.gz for a bug report: status, maps, rules, routes, devices, logs and"
    " versions. Secrets are left out; addresses and names are not.",
)
@click.option(
    "--try",
    "tried",
    type=click.Choice(trial.TRIABLE),
    help="Try the fix of this check. Traffic is watched for 10 s before and 10 s after. The fix is"
    " undone if it helps nothing, or if something is clearly worse.",
)
def doctor(as_json: bool, bundle: Path | None, tried: str | None) -> None:  # noqa: FBT001 (a flag is click's)
    """Find what is wrong with this node, and the commands that fix it.

    Each finding is ok, warn or fail, with its meaning and the commands that fix it. Without --try
    nothing is changed. No packet is sent: the kernel is tried in a network namespace of its own. It
    works without an agent too. The exit status is 1 if a finding is fail, or if the fix that was
    tried was undone, and 0 if all is ok or warn. It is 2 if doctor itself failed. Without root it
    is 1, as of every command, and nothing is printed to standard output.
    """
    need_root()
    if bundle and tried:
        raise click.UsageError("--bundle and --try are two commands; run one after the other")
    if bundle:
        need_plain(bundle)
        need_writable(bundle)
    state = state_directory()
    if tried:
        _try(state, tried, as_json=as_json)
        return
    found = examine(state)
    told = document(found)
    emit(told, text, as_json=as_json)
    if bundle:
        try:
            write(bundle, state, told)
        except OSError as error:
            raise click.UsageError(f"can't write {bundle}: {error.strerror}") from None
    if worst(found) is Level.FAIL:
        raise SystemExit(1)


def _try(state: Path, check: str, *, as_json: bool) -> None:
    interrupt.catch()
    try:
        outcome = try_fix(state, check)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if outcome is None:
        emit({"tried": []}, lambda _: f"{check}: all is well", as_json=as_json)
        return
    emit(outcome, trial.text, as_json=as_json)
    if not outcome["kept"]:
        raise SystemExit(1)
