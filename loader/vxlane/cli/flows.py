# SPDX-License-Identifier: Apache-2.0
"""`vxlane flows` and `vxlane flows flush`: the flows of this node's pods, and their approvals."""

from __future__ import annotations

import click

from vxlane.cli.common import Json, as_json, emit, examples, is_alone
from vxlane.pods.names import read_pod_names
from vxlane.show import node
from vxlane.show.table import columns, table
from vxlane.util.places import state_directory
from vxlane.why.slow import slow_flows

_HEADER = ("PROTO", "LOCAL", "REMOTE", "TRANSLATED", "STATE", "OUT s", "IN s", "POD")
_SLOW_KEYS = ("proto", "from", "to", "verdict", "packets", "bytes", "idle_s")


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "vxlane flows",
        "vxlane flows --slow",
        "vxlane flows --json | jq 'map(select(.state == \"approved\")) | length'",
    ),
)
@click.option(
    "--slow",
    is_flag=True,
    help="List the 20 busiest flows that are not bypassed, what they are sorted by, and why.",
)
@as_json
@click.pass_context
def flows(ctx: click.Context, slow: bool, as_json: bool) -> None:  # noqa: FBT001 (flags are click's)
    """List the flows of this node's pods, or withdraw their approvals.

    STATE says whether packets may be bypassed. Those of an approved flow may, in one direction at
    least. Of one that is learning, aged or withdrawn, packets must come out of the kernel path
    first. docs/operate.md explains each state.

    OUT and IN are seconds since a packet of that direction last came out of the kernel path. A
    direction without a number never did. TRANSLATED is what netfilter turns LOCAL or REMOTE into,
    as for a Service. It is there if a flow is translated.
    """
    if not is_alone(ctx):
        return
    if slow:
        emit(slow_flows(state_directory()), _slow_text, as_json=as_json)
    else:
        state = state_directory()
        with node.open_maps(state) as maps:
            emit(node.flows(maps, read_pod_names(state)), _text, as_json=as_json)


@flows.command(
    epilog=examples("vxlane flows flush", "iptables-legacy-restore rules && vxlane flows flush")
)
@as_json
def flush(as_json: bool) -> None:  # noqa: FBT001
    """Withdraw every approval.

    Each flow goes through netfilter again before it is bypassed. The agent does this itself when
    rules change. It sees a change by iptables-legacy within a second, and none of an ipset.
    """
    epoch = node.call(state_directory(), {"op": "flush"})["epoch"]
    emit({"epoch": epoch}, lambda done: f"epoch {done['epoch']}", as_json=as_json)


def _translation(flow: Json) -> str:
    """The ends that netfilter makes others of."""
    behind = flow["translated"] or flow
    ends = [
        f"{behind[end]}:{behind[f'{end}_port']}"
        for end in ("local", "remote")
        if any(behind[key] != flow[key] for key in (end, f"{end}_port"))
    ]
    return " ".join(ends)


def _age(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _text(listed: list[Json]) -> str:
    header = list(_HEADER)
    rows = [
        [
            flow["protocol"],
            f"{flow['local']}:{flow['local_port']}",
            f"{flow['remote']}:{flow['remote_port']}",
            _translation(flow),
            flow["state"],
            _age(flow["out_age_seconds"]),
            _age(flow["in_age_seconds"]),
            flow["pod"] or "",
        ]
        for flow in listed
    ]
    if not any(flow["translated"] for flow in listed):
        # An empty column would cost pods' names their middle.
        for line in (header, *rows):
            del line[_HEADER.index("TRANSLATED")]
    return table(header, rows, cut="POD")


def _slow_text(document: Json) -> str:
    rows = [
        {
            **flow,
            "proto": flow["protocol"],
            "idle_s": flow["idle_seconds"],
            "from": f"{flow['source']}:{flow['source_port']}",
            "to": f"{flow['destination']}:{flow['destination_port']}",
        }
        for flow in document["flows"]
    ]
    reasons = {flow["verdict"]: flow["reason"] for flow in document["flows"]}
    parts = [
        f"Ordered by {document['order']}.",
        columns(_SLOW_KEYS, rows)
        if rows
        else "Every flow that netfilter follows is bypassed, or idle.",
        "\n".join(f"{verdict}: {reason}" for verdict, reason in reasons.items()),
        *(f"note: {note}" for note in document["notes"]),
    ]
    return "\n\n".join(filter(None, parts))
