# SPDX-License-Identifier: Apache-2.0
"""`vxlane detach`: the bypass leaves this node."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from vxlane.agent.detach import detach as undo
from vxlane.agent.server import logs
from vxlane.cli.common import PRIVATE, examples, need_root
from vxlane.util.places import STATE, STATE_VARIABLE


@click.command(epilog=examples("vxlane detach", "vxlane detach --network"))
@click.option(
    "--state-dir",
    type=PRIVATE,
    default=str(STATE),
    envvar=STATE_VARIABLE,
    show_default=True,
    help="The agent's state directory.",
)
@click.option(
    "--network",
    is_flag=True,
    help="Remove the kernel path too, if vxlane made it and no pod or flanneld uses it.",
)
def detach(state_dir: Path, network: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Remove the bypass from this node, and end the agent if it runs.

    The kernel path stays, and pods keep their network. If a detach is interrupted, the next one
    finishes it.
    """
    need_root()
    logs.set_up(logs.LogFormat.TEXT, logging.INFO)
    undo(state_dir, network=network)
