# SPDX-License-Identifier: Apache-2.0
"""What commands that need a runtime's CNI files share: where they are, found or given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vxlane.cli.common import PathName
from vxlane.runtime import cni_places, network

DIRECTORY = PathName(file_okay=False)

Function = TypeVar("Function", bound=Callable[..., Any])


def places(command: Function) -> Function:
    """Give `command` the options that tell where a runtime has its CNI files.

    It gets `cni_bin_dir`, `cni_conf_dir` and `network_name`, and `cni_cache_dir` if it has that
    option. Directories that are not given are those of the runtime.
    """
    options = (
        click.option(
            "--cni-bin-dir",
            type=DIRECTORY,
            envvar=cni_places.PLUGINS_VARIABLE,
            help="Directory of the CNI plugins. The default is what the runtime uses.",
        ),
        click.option(
            "--cni-conf-dir",
            type=DIRECTORY,
            envvar=cni_places.NETWORKS_VARIABLE,
            help="Directory of the CNI networks. The default is what the runtime uses.",
        ),
        click.option(
            "--host-root",
            type=DIRECTORY,
            default=str(cni_places.ROOT),
            envvar=cni_places.ROOT_VARIABLE,
            show_default=True,
            help="The node's root directory as it is seen from here, to look for its runtime.",
        ),
        click.option(
            "--network-name",
            default=network.USUAL,
            show_default=True,
            help="The name of flannel's network.",
        ),
    )
    filled: Any = _filled(command)
    for option in reversed(options):
        filled = option(filled)
    made: Function = filled
    return made


def _filled(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command`, called with the directories that were found where none are given."""

    @functools.wraps(command)
    def call(
        *,
        cni_bin_dir: Path | None,
        cni_conf_dir: Path | None,
        host_root: Path,
        network_name: str,
        **rest: Any,
    ) -> Any:
        found = cni_places.chosen(
            network_name, host_root, conf_dir=cni_conf_dir, bin_dir=cni_bin_dir
        )
        if "cni_cache_dir" in rest:
            usual = cni_places.below(host_root, cni_places.CACHE)
            rest["cni_cache_dir"] = rest["cni_cache_dir"] or usual
        given = {"cni_bin_dir": found.bin_dir, "cni_conf_dir": found.conf_dir}
        return command(network_name=network_name, **given, **rest)

    return call


def host_root() -> Path:
    """Where the node's root directory is seen from here, as the command that runs was told."""
    root: Path = click.get_current_context().params["host_root"]
    return root


def report(changes: list[str]) -> None:
    """Print what was done, a line each."""
    for change in changes or ["nothing to do"]:
        click.echo(change)
