# SPDX-License-Identifier: Apache-2.0
"""`vxlane cluster`: all nodes at once, by what their agents say and by their annotations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vxlane.cli.cluster_options import connect, is_agreed, kubeconfig, soak, yes
from vxlane.cli.common import as_json, emit, examples
from vxlane.cluster.nodes import document
from vxlane.cluster.rollout import Patience, Rollout, changes, read
from vxlane.errors import ConfigError, VxlaneError
from vxlane.show.table import columns
from vxlane.sources.steering import NOTHING, Wish, parse_wish
from vxlane.util import interrupt

_KEYS = ("node", "version", "mode", "wanted", "bypass", "share", "pods", "trouble")


def _share(_ctx: click.Context, _param: click.Parameter, value: str) -> Wish:
    """A share of a node's pods as a wish for the node."""
    try:
        wish = parse_wish(value)
    except ConfigError:
        wish = NOTHING
    if not wish.is_on:
        raise click.BadParameter(f"{value!r} is no share of pods; write it as 25%")
    return wish


@click.group(epilog=examples("vxlane cluster status", "vxlane cluster rollback --yes"))
def cluster() -> None:
    """Show all nodes of a Kubernetes cluster, and switch their bypass on or off.

    Each node's agent reports in an annotation of its node, and follows another one. These commands
    read the first and write the second. They have your own rights, and need those to get, list and
    patch nodes and to list pods.
    """


@cluster.command(
    epilog=examples(
        "vxlane cluster status",
        "vxlane cluster status --json | jq '.nodes[] | select(.share < 0.5).node'",
    )
)
@kubeconfig
@as_json
def status(kubeconfig: Path | None, as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Show all nodes: version, mode, the bypass as wanted and as it is, its share, troubles.

    The share of bypassed packets is that of five minutes, and up to five minutes old. A node
    without an agent uses the kernel path. The exit status is 1 if a node has trouble.
    """
    documents = [document(node) for node in read(connect(kubeconfig))]
    emit({"nodes": documents}, _table, as_json=as_json)
    if any(item["troubles"] for item in documents):
        sys.exit(1)


@cluster.command(
    epilog=examples(
        "vxlane cluster enable node1 --pods 10% --soak 300 --yes",
        "vxlane cluster enable node1 --yes",
        "vxlane cluster enable --all --yes",
    )
)
@click.argument("nodes", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Switch all nodes whose agents report.")
@click.option(
    "--pods",
    callback=_share,
    metavar="SHARE",
    default="100%",
    show_default=True,
    help="Bypass only this share of a node's pods. They are always the same ones.",
)
@soak
@kubeconfig
@yes
def enable(
    *,
    nodes: tuple[str, ...],
    is_all: bool,
    pods: Wish,
    soak: float,
    kubeconfig: Path | None,
    yes: bool,
) -> None:
    """Switch the bypass of nodes on, one after the other.

    Each node is compared with itself before: whether it is Ready, its agent's failures, its pods
    that are not ready, and restarts. If a node is worse or can't be watched any more, it is
    switched back, and no other node is switched. Whether applications are well is for you to watch.
    The printed shares show how much is bypassed. To go on, run it again with more pods or more
    nodes.
    """
    if bool(nodes) == is_all:
        raise click.UsageError("name the nodes to enable, or pass --all")
    interrupt.catch_each()
    api = connect(kubeconfig)
    planned = changes(read(api), pods, None if is_all else nodes)
    if is_agreed(api.server, map(str, planned), yes=yes):
        Rollout(api, Patience(soak=soak), click.echo).one_by_one(planned)


@cluster.command(
    epilog=examples("vxlane cluster disable node1", "vxlane cluster disable node1 node2 --yes")
)
@click.argument("nodes", nargs=-1, required=True)
@kubeconfig
@yes
def disable(nodes: tuple[str, ...], kubeconfig: Path | None, *, yes: bool) -> None:
    """Switch the bypass of nodes off: all packets take the kernel path.

    The agent keeps running, and connections survive. In mode own the nodes keep their network.
    """
    api = connect(kubeconfig)
    planned = changes(read(api), NOTHING, nodes)
    if is_agreed(api.server, map(str, planned), yes=yes):
        Rollout(api, Patience(), click.echo).at_once(planned)


@cluster.command(epilog=examples("vxlane cluster rollback", "vxlane cluster rollback --yes"))
@kubeconfig
@yes
def rollback(kubeconfig: Path | None, *, yes: bool) -> None:
    """Switch the bypass off on all nodes at once."""
    api = connect(kubeconfig)
    everywhere = read(api)
    planned = changes(everywhere, NOTHING, [n.name for n in everywhere if not n.obstacle])
    if is_agreed(api.server, map(str, planned), yes=yes):
        Rollout(api, Patience(), click.echo).at_once(planned)


def _table(document: dict[str, Any]) -> str:
    rows = []
    for item in document["nodes"]:
        share = item["share"]
        trouble = item["obstacle"] or next(iter(item["troubles"]), "")
        shown = {"share": None if share is None else f"{share:.0%}", "trouble": trouble}
        rows.append({**item, **shown})
    if not rows:
        raise VxlaneError("the cluster has no nodes; is this the right kubeconfig?")
    return columns(_KEYS, rows)
