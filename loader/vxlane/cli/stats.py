# SPDX-License-Identifier: Apache-2.0
"""`vxlane stats`: packets by verdict and by peer, and the share that was bypassed."""

from __future__ import annotations

import click

from vxlane.cli.common import Json, as_json, emit, examples
from vxlane.show import node
from vxlane.show.table import columns, table
from vxlane.util.places import state_directory

_HEADER = ("PROGRAM", "VERDICT", "PACKETS", "BYTES")
_PEER_KEYS = ("cidr", "address", "tx_packets", "tx_bytes", "rx_packets", "rx_bytes")


@click.command(epilog=examples("vxlane stats", "vxlane stats --json | jq .bypassed.total.share"))
@as_json
def stats(as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Show packets by program and verdict, by peer, and the share that was bypassed.

    docs/verdicts has a page on each verdict. A super-packet of 64 kB counts once.
    """
    with node.open_maps(state_directory()) as maps:
        emit(node.stats(maps), _text, as_json=as_json)


def _text(document: Json) -> str:
    rows = [
        (program, verdict, count["packets"], count["bytes"])
        for program, verdicts in document["programs"].items()
        for verdict, count in verdicts.items()
        if count["packets"]
    ]
    total = document["bypassed"]["total"]
    share = "none to speak of" if total["share"] is None else f"{total['share']:.1%}"
    return "\n\n".join(
        [
            table(_HEADER, rows),
            columns(_PEER_KEYS, document["peers"]),
            f"bypassed: {share} ({total['bypassed']:,} of {total['packets']:,} packets)",
        ]
    )
