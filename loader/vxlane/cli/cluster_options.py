# SPDX-License-Identifier: Apache-2.0
"""What the commands about a whole cluster share: its kubeconfig, and a plan before any change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from vxlane.cli.common import Number, PathName
from vxlane.cluster import access
from vxlane.cluster.api import ClusterApi

Function = TypeVar("Function", bound=Callable[..., Any])

kubeconfig = click.option(
    "--kubeconfig",
    type=PathName(dir_okay=False),
    help="Reach the cluster by this file. The default is $KUBECONFIG, ~/.kube/config, or the file "
    "of k3s or RKE2.",
)
yes = click.option("--yes", is_flag=True, help="Do it. Without this option the plan is shown.")
soak = click.option(
    "--soak",
    type=Number(min=0),
    default=60.0,
    show_default=True,
    help="Watch each node for this many seconds before the next one is switched.",
)


def connect(path: Path | None) -> ClusterApi:
    """The API server, with the rights of whoever runs this."""
    return ClusterApi(access.find(path, os.environ))


def is_agreed(server: str, plan: Iterable[str], *, yes: bool) -> bool:
    """Show the plan; whether it is to be carried out."""
    steps = [step for step in plan if step]
    click.echo(f"on {server}:" if steps else f"on {server}: nothing to do")
    for step in steps:
        click.echo(f"  {step}")
    if steps and not yes:
        click.echo("nothing was changed; --yes does it")
    return bool(steps) and yes
