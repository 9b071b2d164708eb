# SPDX-License-Identifier: Apache-2.0
"""`vxlane peers`: the nodes that packets are sent to."""

from __future__ import annotations

import click

from vxlane.cli.common import as_json, emit, examples
from vxlane.show import node
from vxlane.show.table import columns
from vxlane.util.places import state_directory

_KEYS = ("cidr", "address", "way", "next_hop", "nic", "mtu")


@click.command(
    epilog=examples("vxlane peers", "vxlane peers --json | jq '.[] | select(.nic == null)'")
)
@as_json
def peers(as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """List the nodes that packets are sent to.

    Each peer is shown with its pods' addresses, the path to it, and, in JSON, its VTEP's MAC and
    what the bypass carried. A peer without a NIC has no usable path now.
    """
    with node.open_maps(state_directory()) as maps:
        emit(node.peers(maps), lambda listed: columns(_KEYS, listed), as_json=as_json)
