# SPDX-License-Identifier: Apache-2.0
"""`vxlane agent` and `vxlane detach`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

from vxlane.agent.detach import detach as undo
from vxlane.agent.run import run
from vxlane.agent.server import logs
from vxlane.cli.agent_options import GoFlags, options
from vxlane.errors import ConfigError


@click.command(cls=GoFlags, context_settings={"auto_envvar_prefix": "FLANNELD"})
@options
def agent(**values: Any) -> None:
    """Run this node's agent."""
    _need_root()
    level = logging.DEBUG if values["verbosity"] else logging.INFO
    logs.set_up(logs.LogFormat(values["log_format"]), level)
    run(values)


@click.command()
@click.option("--state-dir", default="/run/vxlane", envvar="VXLANE_STATE_DIR", show_default=True)
@click.option(
    "--network",
    is_flag=True,
    help="Remove the kernel path too, if vxlane made it and no pod or flanneld uses it.",
)
def detach(state_dir: str, network: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Remove the bypass from this node, and end the agent if it runs; the kernel path stays."""
    _need_root()
    logs.set_up(logs.LogFormat.TEXT, logging.INFO)
    undo(Path(state_dir), network=network)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise ConfigError("this changes the node's network and needs root; use sudo")
