# SPDX-License-Identifier: Apache-2.0
"""`vxlane agent`: this node's agent."""

from __future__ import annotations

import logging
from typing import Any

import click

from vxlane.agent.run import run
from vxlane.agent.server import logs
from vxlane.cli.agent_options import options
from vxlane.cli.common import examples, need_root
from vxlane.cli.go_flags import GoFlags


@click.command(
    cls=GoFlags,
    context_settings={"auto_envvar_prefix": "FLANNELD"},
    epilog=examples(
        "vxlane agent --mode adopt",
        "vxlane agent --kube-subnet-mgr --ip-masq --kubeconfig-file /etc/kubernetes/node.conf",
        "vxlane agent --nodes-file /etc/vxlane/nodes.yaml --ip-masq --metrics-port 9401",
    ),
)
@options
def agent(**values: Any) -> None:
    """Run this node's agent.

    It accelerates the overlay that flanneld makes on this node (--mode adopt), or makes the
    overlay itself in flanneld's place (--mode own). It takes flanneld's flags and environment
    variables. The nodes come from Kubernetes, etcd or a file. It runs until SIGTERM or Ctrl-C, and
    the kernel path stays after that.
    """
    need_root()
    level = logging.DEBUG if values["verbosity"] else logging.INFO
    logs.set_up(logs.LogFormat(values["log_format"]), level)
    run(values)
