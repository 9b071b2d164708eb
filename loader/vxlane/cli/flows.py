# SPDX-License-Identifier: Apache-2.0
"""`vxlane flows` and `vxlane flows flush`: the approved flows."""

from __future__ import annotations

import click

from vxlane.cli.common import Json, as_json, emit, examples
from vxlane.show import node
from vxlane.show.table import table
from vxlane.util.places import state_directory

_HEADER = ("PROTOCOL", "LOCAL", "REMOTE", "TRANSLATED", "OUT AGE s", "IN AGE s", "")


@click.group(
    invoke_without_command=True,
    epilog=examples("vxlane flows", "vxlane flows --json | jq 'map(select(.withdrawn)) | length'"),
)
@as_json
@click.pass_context
def flows(ctx: click.Context, as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """List the flows that came out of the kernel path, or withdraw them all.

    An age is the time since that direction last came out of the kernel path. A direction without
    an age never did. TRANSLATED is what netfilter makes of LOCAL and REMOTE, as it does for a
    Service.
    """
    if ctx.invoked_subcommand is None:
        with node.open_maps(state_directory()) as maps:
            emit(node.flows(maps), _text, as_json=as_json)


@flows.command(
    epilog=examples("vxlane flows flush", "iptables-legacy-restore rules && vxlane flows flush")
)
@as_json
def flush(as_json: bool) -> None:  # noqa: FBT001
    """Withdraw every approval.

    Each flow goes through netfilter again before it is bypassed. The agent does this by itself for
    changes of rules that it can see; iptables-legacy and ipset have no events.
    """
    epoch = node.call(state_directory(), {"op": "flush"})["epoch"]
    emit({"epoch": epoch}, lambda done: f"epoch {done['epoch']}", as_json=as_json)


def _translation(flow: Json | None) -> str:
    if flow is None:
        return ""
    return f"{flow['local']}:{flow['local_port']} {flow['remote']}:{flow['remote_port']}"


def _text(listed: list[Json]) -> str:
    rows = [
        (
            flow["protocol"],
            f"{flow['local']}:{flow['local_port']}",
            f"{flow['remote']}:{flow['remote_port']}",
            _translation(flow["translated"]),
            flow["out_age_seconds"],
            flow["in_age_seconds"],
            "withdrawn" if flow["withdrawn"] else "",
        )
        for flow in listed
    ]
    return table(_HEADER, rows)
