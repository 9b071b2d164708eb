"""`vxlane agent` and `vxlane detach`."""

from __future__ import annotations

import logging
import os
from typing import Any

import click

from vxlane.loader.agent import logs
from vxlane.loader.agent.options import GoFlags, options
from vxlane.loader.agent.run import run
from vxlane.loader.errors import ConfigError


@click.command(cls=GoFlags, context_settings={"auto_envvar_prefix": "FLANNELD"})
@options
def agent(**values: Any) -> None:
    """Run this node's agent."""
    _need_root()
    level = logging.DEBUG if values["verbosity"] else logging.INFO
    logs.set_up(logs.LogFormat(values["log_format"]), level)
    run(values)


def _need_root() -> None:
    if os.geteuid() != 0:
        raise ConfigError("the agent changes this node's network and needs root; use sudo")
