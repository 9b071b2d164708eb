# SPDX-License-Identifier: Apache-2.0
"""`vxlane uninstall`: the CNI plugin off this node."""

from __future__ import annotations

from pathlib import Path

import click

from vxlane.cli.cni_options import DIRECTORY, PLUGIN, below, of_a_root, places, report
from vxlane.cli.common import examples
from vxlane.install import beside, network
from vxlane.pods import cni_cache
from vxlane.util import files


@click.command(epilog=examples("vxlane uninstall", "vxlane uninstall --root /host"))
@of_a_root
@places
@click.option(
    "--cni-cache-dir",
    type=DIRECTORY,
    default=str(cni_cache.CACHE),
    show_default=True,
    help="Where the runtime remembers which plugins made a pod.",
)
def uninstall(
    *, root: Path, cni_bin_dir: Path, cni_conf_dir: Path, network_name: str, cni_cache_dir: Path
) -> None:
    """Take the CNI plugin off this node.

    It leaves the network's list at once. Its executable stays while pods that were made with it
    are there, since some runtimes need it to delete them; run this again when they are gone.
    """
    cni_conf_dir, program = below(root, cni_conf_dir), below(root, cni_bin_dir / PLUGIN)
    changes = network.apply(cni_conf_dir, network.absent(cni_conf_dir, network_name))
    # Some runtimes delete a pod by the list that made it: without the executable, never.
    left = cni_cache.made_with(PLUGIN, below(root, cni_cache_dir))
    if not left:
        changes += [f"removed {program}"] if files.remove(program) else []
        changes += beside.remove(program)
    report(changes)
    if left and program.exists():
        click.echo(
            f"kept {program}: pods that were made with it ({left}) may need it to be deleted; "
            "run this again when they are gone"
        )
