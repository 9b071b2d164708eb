# SPDX-License-Identifier: Apache-2.0
"""`vxlane pods`: this node's accelerated pods."""

from __future__ import annotations

import click

from vxlane.cli.common import as_json, emit, examples
from vxlane.pods.names import read_pod_names
from vxlane.show import node
from vxlane.show.table import columns
from vxlane.util.places import state_directory

_KEYS = ("name", "address", "veth", "bridge", "mtu", "guarded")


@click.command(
    epilog=examples("vxlane pods", "vxlane pods --json | jq '.[] | select(.guarded != [])'")
)
@as_json
def pods(as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """List this node's accelerated pods.

    A pod is guarded in a direction if its interface has a shaper, another program or isolation
    there. Its packets of that direction stay on the kernel path. A pod is judged if a rule or a
    device acts on each of its packets. All of them stay on the kernel path.
    """
    state = state_directory()
    with node.open_maps(state) as maps:
        emit(
            node.pods(maps, read_pod_names(state)),
            lambda listed: columns(_KEYS, listed, cut="NAME"),
            as_json=as_json,
        )
