# SPDX-License-Identifier: Apache-2.0
"""What `vxlane install` and `vxlane uninstall` share: where a runtime has its CNI files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

PLUGIN = "vxlane"
"""The plugin's name: its type in a network's list, and its executable."""
PLUGINS_VARIABLE, NETWORKS_VARIABLE = "VXLANE_CNI_BIN_DIR", "VXLANE_CNI_CONF_DIR"
DIRECTORY = click.Path(path_type=Path, file_okay=False)

of_a_root = click.option(
    "--root",
    type=DIRECTORY,
    default="/",
    show_default=True,
    help="Where the node's file system begins here; all directories are below it.",
)

Function = TypeVar("Function", bound=Callable[..., Any])


def places(command: Function) -> Function:
    """Give `command` the options that tell where a runtime has its CNI files."""
    options = (
        click.option(
            "--cni-bin-dir",
            type=DIRECTORY,
            default="/opt/cni/bin",
            envvar=PLUGINS_VARIABLE,
            show_default=True,
            help="Where the runtime finds plugins.",
        ),
        click.option(
            "--cni-conf-dir",
            type=DIRECTORY,
            default="/etc/cni/net.d",
            envvar=NETWORKS_VARIABLE,
            show_default=True,
            help="Where the runtime finds networks.",
        ),
        click.option(
            "--network-name",
            default="cbr0",
            show_default=True,
            help="The name of flannel's network.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def below(root: Path, path: Path) -> Path:
    """Where a path of the node is here."""
    return root / path.absolute().relative_to("/")


def report(changes: list[str]) -> None:
    """Print what was done, a line each."""
    for change in changes or ["nothing to do"]:
        click.echo(change)
