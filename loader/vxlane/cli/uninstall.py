# SPDX-License-Identifier: Apache-2.0
"""`vxlane uninstall`: the CNI plugin off this node."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import click

from vxlane.cli.cni_options import DIRECTORY, places, report
from vxlane.cli.common import examples
from vxlane.pods import cni_cache
from vxlane.runtime import cni_places, installed, interpreter, network
from vxlane.util import files


@click.command(epilog=examples("vxlane uninstall", "vxlane uninstall --host-root /host"))
@places
@click.option(
    "--cni-cache-dir",
    type=DIRECTORY,
    envvar=cni_places.CACHE_VARIABLE,
    help="Directory in which the runtime keeps which plugins made a pod. The default is the node's "
    "/var/lib/cni.",
)
def uninstall(
    *, cni_bin_dir: Path, cni_conf_dir: Path, network_name: str, cni_cache_dir: Path
) -> None:
    """Remove the CNI plugin from this node.

    It leaves the network's list at once. Its executable stays as long as pods that were made with
    it, since some runtimes need it to delete them: run this again when they are gone. It also stays
    while a list that vxlane did not write names it.
    """
    with files.alone(cni_bin_dir):
        _uninstall(cni_bin_dir, cni_conf_dir, network_name, cni_cache_dir)


def _uninstall(bin_dir: Path, conf_dir: Path, network_name: str, cache_dir: Path) -> None:
    known = installed.read(conf_dir)
    if known:
        # First of all: an agent that lives would put the lists right again.
        installed.write(conf_dir, dataclasses.replace(known, form=None))
    networks = dict.fromkeys([network_name, *([known.network] if known else [])])
    changes = []
    for name in networks:
        changes += network.apply(conf_dir, network.absent(conf_dir, name))
    programs = dict.fromkeys([bin_dir / network.TYPE, *(known.programs if known else ())])
    needed = _needed(conf_dir, networks, cache_dir)
    if not needed:
        for program in programs:
            changes += [f"removed {program}"] if files.remove(program) else []
            changes += interpreter.remove(program)
        installed.forget(conf_dir)
    report(changes)
    for program in programs:
        if program.exists():
            click.echo(f"kept {program}: {needed}")


def _needed(conf_dir: Path, networks: Iterable[str], cache_dir: Path) -> str:
    """Why the executable has to stay, and until when; "": it may go."""
    # Some runtimes delete a pod by the list that made it: without the executable, never.
    if left := cni_cache.made_with(network.TYPE, cache_dir):
        gone = "run this again when they are gone"
        return f"pods that were made with it ({left}) may need it to be deleted; {gone}"
    if any(network.calls_us(conf_dir, name) for name in networks):
        gone = "take it out of there, and run this again"
        return f"a list in {conf_dir} that vxlane did not write calls it for new pods; {gone}"
    return ""
