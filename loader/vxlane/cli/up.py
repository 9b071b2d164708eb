# SPDX-License-Identifier: Apache-2.0
"""`vxlane up`: vxlane onto a cluster, node by node."""

from __future__ import annotations

from pathlib import Path

import click

from vxlane.cli.cluster_options import connect, is_agreed, kubeconfig, soak, yes
from vxlane.cli.common import examples
from vxlane.cluster.install import Installation
from vxlane.cluster.rollout import Patience
from vxlane.util import interrupt


@click.command(
    epilog=examples(
        "vxlane up",
        "vxlane up --yes",
        "vxlane up --image registry.example/vxlane:0.1.0 --soak 300 --yes",
    )
)
@click.option("--image", default="", help="Image of the agents. The default is the manifests'.")
@soak
@kubeconfig
@yes
def up(*, image: str, soak: float, kubeconfig: Path | None, yes: bool) -> None:
    """Install vxlane on a cluster with flannel, and switch it on node by node.

    Without --yes it changes nothing, and shows what it would do. The agents start with the bypass
    off. Then each node is switched on and watched, as 'vxlane cluster enable' does. If a node is
    worse than before, it is switched back, and no other node is switched. Nodes that are not Ready
    are left out. 'vxlane down' removes everything again.
    """
    interrupt.catch_each()
    api = connect(kubeconfig)
    installation = Installation(api, patience=Patience(soak=soak), say=click.echo)
    objects, plan = installation.plan_up(image)
    if is_agreed(api.server, plan, yes=yes):
        installation.up(objects)
