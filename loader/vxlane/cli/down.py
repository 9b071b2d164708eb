# SPDX-License-Identifier: Apache-2.0
"""`vxlane down`: vxlane off a cluster."""

from __future__ import annotations

from pathlib import Path

import click

from vxlane.cli.cluster_options import connect, is_agreed, kubeconfig, yes
from vxlane.cli.common import examples
from vxlane.cluster.install import Installation
from vxlane.cluster.rollout import Patience


@click.command(epilog=examples("vxlane down", "vxlane down --yes"))
@kubeconfig
@yes
def down(*, kubeconfig: Path | None, yes: bool) -> None:
    """Remove what 'vxlane up' has installed on a cluster.

    Without --yes it changes nothing, and shows what it would do. The bypass is switched off
    everywhere, each node is cleaned, and the objects are deleted. Packets take the kernel path from
    the first step on. Nodes that are not Ready are left out and named.
    """
    api = connect(kubeconfig)
    installation = Installation(api, patience=Patience(), say=click.echo)
    objects, plan = installation.plan_down()
    if is_agreed(api.server, plan, yes=yes):
        installation.down(objects)
