# SPDX-License-Identifier: Apache-2.0
"""The command `vxlane`: a table of commands. Each is imported when it is called.

Every failure is one sentence on stderr and exit status 1, or 2 if the command line is wrong.
Imports click and errors only, so `vxlane --help` costs no more than click.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys

import click

from vxlane.errors import ConfigError, KernelError, OptionError, SourceError, VxlaneError

COMMANDS = {
    "agent": ("vxlane.cli.agent:agent", "Run this node's agent."),
    "bench": ("vxlane.cli.bench:bench", "Measure the bypass against other paths."),
    "capture": ("vxlane.cli.capture:capture", "Write packets to a pcapng file."),
    "cluster": ("vxlane.cli.cluster:cluster", "Show all nodes, and switch their bypass."),
    "compile": ("vxlane.cli.compile:compile", "Compile the programs into a file."),
    "detach": ("vxlane.cli.detach:detach", "Remove the bypass from this node."),
    "doctor": ("vxlane.cli.doctor:doctor", "Find what is wrong with this node."),
    "down": ("vxlane.cli.down:down", "Remove vxlane from a cluster."),
    "flows": ("vxlane.cli.flows:flows", "List, or flush, approved flows."),
    "install": ("vxlane.cli.install:install", "Install the CNI plugin on this node."),
    "lab": ("vxlane.cli.lab:lab", "Make nodes and pods in namespaces."),
    "path": ("vxlane.cli.path:path", "Show how long packets took between nodes."),
    "peers": ("vxlane.cli.peers:peers", "List the nodes that packets may be sent to."),
    "pods": ("vxlane.cli.pods:pods", "List this node's accelerated pods."),
    "profile": ("vxlane.cli.profile:profile", "Show where packets' time goes, by path."),
    "stats": ("vxlane.cli.stats:stats", "Show packets by verdict and by peer."),
    "status": ("vxlane.cli.status:status", "Show the state of agent and programs."),
    "test": ("vxlane.cli.test:test", "Test whether pods reach other nodes."),
    "top": ("vxlane.cli.top:top", "Watch rates by pod, peer and verdict."),
    "trace": ("vxlane.cli.trace:trace", "Show packets, each with its verdict."),
    "uninstall": ("vxlane.cli.uninstall:uninstall", "Remove the CNI plugin from this node."),
    "up": ("vxlane.cli.up:up", "Install vxlane on a cluster, node by node."),
    "why": ("vxlane.cli.why:why", "Explain why a flow is not bypassed."),
}
"""name -> (module:attribute, what `vxlane --help` says)"""


def present() -> dict[str, tuple[str, str]]:
    """The commands of this installation: one for nodes may leave vxlane.bench out, and vxlane.lab,
    which that needs.
    """
    has_lab, has_bench = (
        importlib.util.find_spec(f"vxlane.{name}") is not None for name in ("lab", "bench")
    )
    left_out = {"lab": not has_lab, "bench": not (has_lab and has_bench)}
    return {name: COMMANDS[name] for name in sorted(COMMANDS) if not left_out.get(name)}


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names, in the order of the help."""
        return list(present())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command `cmd_name`, imported; None: there is no such command."""
        if cmd_name not in present():
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, meaning) for name, (_, meaning) in present().items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vxlane", message="%(prog)s %(version)s")
def cli() -> None:
    """Make flannel's VXLAN overlay fast without changing what it is.

    `vxlane COMMAND --help` explains a command and has examples. vxlane(8) is all of them.
    """


def _may_lack_root(error: Exception) -> bool:
    """Whether root might not meet `error`, which does not say so itself."""
    if os.geteuid() == 0 or "root" in str(error) or isinstance(error, (ConfigError, SourceError)):
        return False
    return not isinstance(error, KernelError) or error.errno in {errno.EPERM, errno.EACCES}


def _said(error: VxlaneError | OSError) -> str:
    if isinstance(error, VxlaneError):
        return str(error)
    capabilities = importlib.import_module("vxlane.util.capabilities")
    said: str = capabilities.in_words(error)
    return said


def _open_what_is_closed() -> None:
    """Make the null device of a standard file that a shell has closed (>&-). Python has None for
    it, and the next file that is opened would be it for every child.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a write fails with whose file has no name here: it is standard output."""


def main() -> None:
    """Run the command line; never returns."""
    _open_what_is_closed()
    # Where another program has made it so, a full pipe would take nothing.
    os.set_blocking(1, True)
    try:
        cli.main(prog_name="vxlane")
    except (VxlaneError, PermissionError) as error:
        advice = "; vxlane needs root, run it again with sudo" if _may_lack_root(error) else ""
        click.echo(f"vxlane: {_said(error)}{advice}", err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)
    except OSError as error:
        # What is left is written at exit, and would fail again in the interpreter's words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        is_output = error.filename is None and error.errno in _NO_ROOM
        sys.exit(f"vxlane: {'standard output: ' if is_output else ''}{_said(error)}")
