# SPDX-License-Identifier: Apache-2.0
"""`vxlane compile`: the programs for nodes that have no compiler."""

from __future__ import annotations

from pathlib import Path

import click

from vxlane.cli.common import PathName, examples, need_plain, need_root, need_writable
from vxlane.datapath import compiler, precompiled
from vxlane.datapath.source import Part
from vxlane.util import files


@click.command(
    epilog=examples(
        "vxlane compile compiled.json", "vxlane compile build/lib/vxlane/datapath/compiled.json"
    )
)
@click.argument("output", type=PathName(dir_okay=False))
def compile(output: Path) -> None:  # noqa: A001 (the command's name)
    """Compile the programs into the file OUTPUT, for nodes that have no compiler.

    The file goes into the package as vxlane/datapath/compiled.json, and fits this version only. The
    programs fit every supported kernel and every setting of the agent. This needs root, since the
    compiler makes maps.
    """
    need_plain(output)
    need_root()
    need_writable(output)
    log_file = output.with_name(f"{output.name}.log")
    parts = {part: compiler.run(part, log_file, is_portable=True) for part in Part}
    files.replace(output, precompiled.text(parts))
