# SPDX-License-Identifier: Apache-2.0
"""`vxlane lab ...`: makes, lists and removes labs, and runs commands in them.

Imports the lab's modules and click.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from vxlane.cli.common import Json, Number, as_json, emit, examples, need_root
from vxlane.config import SUBNET_VARIABLE
from vxlane.errors import LabError
from vxlane.lab import demo as demos
from vxlane.lab import lab as labs
from vxlane.lab import namespaces, report
from vxlane.lab.agents import program
from vxlane.lab.pods import cni_directories
from vxlane.runtime.cni_places import CACHE_VARIABLE, NETWORKS_VARIABLE, PLUGINS_VARIABLE
from vxlane.show.table import table
from vxlane.util import interrupt
from vxlane.util.places import STATE_VARIABLE

name_option = click.option("--name", default="lab", show_default=True, help="The lab's name.")


def _nodes_and_pods(
    _ctx: click.Context, _param: click.Parameter, word: str
) -> list[CompletionItem]:
    """The namespaces of all labs that begin with `word`, for the shell."""
    return [CompletionItem(name) for name in labs.parts() if name.startswith(word)]


@click.group(
    epilog=examples("vxlane lab up --kernel-nodes 1", "vxlane lab exec lab-node1 -- vxlane stats")
)
def lab() -> None:
    """Make a cluster of network namespaces on this machine.

    Each node and each pod is a namespace. The machine's own network is not touched.
    """
    interrupt.catch()


@lab.command(epilog=examples("vxlane lab up", "vxlane lab up --name big --nodes 5 --pods 3"))
@name_option
@click.option(
    "--nodes", type=click.IntRange(1), default=2, show_default=True, help="Number of nodes."
)
@click.option(
    "--pods", type=click.IntRange(0, 253), default=2, show_default=True, help="Pods on each node."
)
@click.option(
    "--kernel-nodes",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of nodes, the last ones, that run nothing of vxlane.",
)
@click.option("--agent-option", multiple=True, help="Option for every agent. Can be repeated.")
def up(name: str, nodes: int, pods: int, kernel_nodes: int, agent_option: tuple[str, ...]) -> None:
    """Make a lab. One of the same name is removed first."""
    need_root()
    made = labs.up(
        name,
        nodes=nodes,
        pods_per_node=pods,
        kernel_only=kernel_nodes,
        agent_options=agent_option,
    )
    click.echo(_table(made.status()))


@lab.command(epilog=examples("vxlane lab down", "vxlane lab down --name big"))
@name_option
@click.pass_context
def down(context: click.Context, name: str) -> None:
    """Remove a lab, or what a killed command left of one.

    If there is nothing of that name, it says so. The exit status is then 1 if --name was given.
    """
    need_root()
    if removed := labs.down(name):
        click.echo(f'removed lab "{name}": {", ".join(removed)}')
        return
    absent = f'there is no lab "{name}"; there are: {", ".join(labs.names()) or "no labs"}'
    # A script may begin with the removal of the usual lab, whether it is there or not.
    if context.get_parameter_source("name") is not ParameterSource.DEFAULT:
        raise LabError(absent)
    click.echo(absent)


@lab.command(
    epilog=examples("vxlane lab status", "vxlane lab status --json | jq -r '.pods[].name'")
)
@name_option
@as_json
def status(name: str, as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """List a lab's nodes and pods."""
    emit(labs.load(name).status(), _table, as_json=as_json)


class _Runs(click.Command):
    """A command whose last argument is one to run: options behind its first word are its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the "--" before COMMAND, unless a person did."""
        words = [at for at, word in enumerate(args) if not word.startswith("-")]
        if len(words) > 1 and "--" not in args[: words[1]]:
            args.insert(words[1], "--")
        return super().parse_args(ctx, args)


@lab.command(
    name="exec",
    cls=_Runs,
    epilog=examples(
        "vxlane lab exec lab-node1 -- vxlane status",
        "vxlane lab exec lab-node1 -- vxlane test",
        "vxlane lab exec lab-node1-pod1 -- ping 10.42.2.2",
    ),
)
@click.argument("namespace", shell_complete=_nodes_and_pods)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(namespace: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the network namespace of a node or pod."""
    need_root()
    node = labs.find(namespace)
    if node:
        networks, plugins, cache = map(str, cni_directories(node))
        os.environ |= {NETWORKS_VARIABLE: networks, PLUGINS_VARIABLE: plugins}
        os.environ |= {CACHE_VARIABLE: cache, STATE_VARIABLE: str(node.directory)}
        # An agent writes it, and the machine's own CNI plugins would go by it.
        os.environ[SUBNET_VARIABLE] = str(node.directory / "subnet.env")
    path = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{Path(program('vxlane')).parent}:{path}"
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and then by COMMAND
        signal.signal(ignored, signal.SIG_DFL)
    argv = namespaces.inside(namespace, command)
    os.execvp(argv[0], argv)  # noqa: S606 (a shell is what is not wanted)


@lab.command(epilog=examples("vxlane lab demo", "vxlane lab demo --rounds 5 --json"))
@click.option("--name", default="demo", show_default=True, help="The lab's name.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Measure each path this many times.",
)
@click.option(
    "--seconds",
    type=Number(0.1),
    default=2.0,
    show_default=True,
    help="Length of one measurement, seconds.",
)
@as_json
def demo(name: str, rounds: int, seconds: float, as_json: bool) -> None:  # noqa: FBT001
    """Send the same traffic by the kernel path and by the bypass, and compare.

    The lab is made for the demo and removed after it. The exit status is 1 if a transfer failed,
    or if the bypass carried less of it than it should.
    """
    need_root()

    def progress(word: str) -> None:
        click.echo(f"demo: {word}", err=True)

    with labs.held(name):
        progress("making a lab of 3 nodes, one of them without vxlane")
        made = labs.up(
            name, nodes=demos.NODES, pods_per_node=demos.PODS, kernel_only=demos.KERNEL_NODES
        )
        try:
            findings = demos.run(made, rounds=rounds, seconds=seconds, progress=progress)
        finally:
            labs.down(name)
    pairs = [found.to_json() for found in findings]
    failures = report.failures(pairs)
    if as_json:
        click.echo(json.dumps({"pairs": pairs, "failures": failures}, indent=2))
    else:
        click.echo(report.text(pairs))
        click.echo(
            f"\nMedians of all rounds ({rounds}), in turns, on {os.cpu_count()} CPUs with Linux"
            f" {os.uname().release}; the wire is a veth pair\nwith every offload on. Ratios mean"
            " something, absolute figures do not. BYPASSED: of the TCP packets."
        )
    if failures:
        raise LabError("; ".join(failures))


def _table(status: Json) -> str:
    nodes = [
        (
            node["name"],
            node["address"],
            node["podCIDR"],
            "kernel only" if node["kernel_only"] else str(node["agent_pid"] or "not running"),
        )
        for node in status["nodes"]
    ]
    pods = [(pod["name"], pod["address"], pod["node"], pod["veth"]) for pod in status["pods"]]
    return "\n\n".join(
        [
            table(("NODE", "ADDRESS", "POD CIDR", "AGENT"), nodes),
            table(("POD", "ADDRESS", "NODE", "VETH"), pods),
        ]
    )
