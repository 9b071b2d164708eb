# SPDX-License-Identifier: Apache-2.0
"""What `vxlane test` and `vxlane bench` share: probe pods by this node's own CNI plugins."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from vxlane.connectivity.pod import Network, ProbePods
from vxlane.datapath.maps import Maps
from vxlane.errors import VxlaneError
from vxlane.install import runtime
from vxlane.runtime import network as networks
from vxlane.show import node


def network(cni_bin_dir: Path, cni_conf_dir: Path, network_name: str) -> Network:
    """How this node's runtime makes pods. ConfigError: its network can't be found, or read."""
    listed = networks.in_force(cni_conf_dir, network_name, drop_ins=runtime.read_drop_ins())
    return Network(listed, cni_bin_dir)


def cleared(state: Path) -> ProbePods:
    """This node's probe pods, without those that killed runs have left."""
    pods = ProbePods(state / "probes")
    for sentence in pods.remove_leftovers():
        click.echo(f"vxlane: {sentence}", err=True)
    return pods


def maps(stack: contextlib.ExitStack, state: Path) -> Maps | None:
    """The maps of this node's programs; None: it has none, and its kernel path is tested."""
    try:
        return stack.enter_context(node.open_maps(state))
    except VxlaneError:
        return None
