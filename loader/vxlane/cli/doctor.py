# SPDX-License-Identifier: Apache-2.0
"""`vxlane doctor`: looks at the node as an expert does."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vxlane.cli.common import as_json, emit, examples
from vxlane.doctor.bundle import write
from vxlane.doctor.examine import examine
from vxlane.doctor.findings import Level, document, text, worst
from vxlane.util.places import state_directory


@click.command(
    epilog=examples(
        "vxlane doctor",
        "vxlane doctor --json | jq -r '.findings[].fix[]'",
        "vxlane doctor --bundle /tmp/report.tar.gz",
    )
)
@as_json
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write a .tar.gz for a bug report: status, maps, rules, routes, devices, logs and"
    " versions. Secrets are left out; addresses and names are not.",
)
def doctor(as_json: bool, bundle: Path | None) -> None:  # noqa: FBT001 (a flag is click's)
    """Look at the node as an expert does.

    Each finding is ok, warn or fail, with its meaning and the commands that mend it. Nothing is
    changed and nothing is sent. The kernel is tried in a network namespace of its own. It works
    without an agent too. The exit status is 1 if something fails, and 0 if all is well or only
    could be better.
    """
    if os.geteuid() != 0:
        raise click.UsageError("this reads the kernel's programs and rules; run it with sudo")
    state = state_directory()
    found = examine(state)
    told = document(found)
    emit(told, text, as_json=as_json)
    if bundle:
        try:
            write(bundle, state, told)
        except OSError as error:
            raise click.UsageError(f"{bundle}: {error.strerror}; name another file") from None
    if worst(found) is Level.FAIL:
        raise SystemExit(1)
