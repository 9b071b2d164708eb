# SPDX-License-Identifier: Apache-2.0
"""`vxlane status|peers|pods|flows|stats`: the pinned maps and the agent's word, as text or JSON.

Works beside a living agent, and on what a dead one left. Imports the datapath's maps and click.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from vxlane.datapath.maps import Maps
from vxlane.datapath.records import PeerCount
from vxlane.errors import VxlaneError
from vxlane.show import documents
from vxlane.show.node import call, open_maps, state_directory
from vxlane.show.table import pairs, table
from vxlane.util.names import device_name

Json = dict[str, Any]

as_json = click.option("--json", "as_json", is_flag=True, help="For programs; see docs/json.md.")


def _print(document: Any, render: Callable[[Any], str], *, as_json: bool) -> None:
    click.echo(json.dumps(document, indent=2) if as_json else render(document))


@click.command()
@as_json
def status(as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Tell how the agent and its programs are; exit status 1 if no packet is bypassed."""
    state = state_directory()
    try:
        agent = call(state, {"op": "status"})["status"]
    except VxlaneError as error:
        agent = {"error": str(error)}
    with open_maps(state) as maps:
        programs = documents.programs_document(
            maps.settings(),
            time.monotonic_ns(),
            peers=len(maps.peers()),
            pods=len(maps.pods()),
            flows=sum(1 for _ in maps.flows()),
        )
    document = {"agent": agent, "programs": programs}
    _print(document, _status_text, as_json=as_json)
    if not programs["bypassing"]:
        raise SystemExit(1)


def _status_text(document: Json) -> str:
    return "\n\n".join(f"{part.upper()}\n{pairs(values)}" for part, values in document.items())


@click.command()
@as_json
def peers(as_json: bool) -> None:  # noqa: FBT001
    """List the nodes that packets are sent to, and what the bypass carried for each."""
    with open_maps(state_directory()) as maps:
        _print(_peers(maps), _peers_text, as_json=as_json)


def _peers(maps: Maps) -> list[Json]:
    counts = maps.peer_counts()
    found = sorted(maps.peers().values(), key=lambda peer: peer.cidr.network_address.packed)
    nothing = PeerCount(0, 0, 0, 0)
    return [
        documents.peer_document(peer, counts.get(peer.slot, nothing), device_name) for peer in found
    ]


def _peers_text(listed: list[Json]) -> str:
    keys = ("cidr", "address", "way", "next_hop", "nic", "mtu", "vtep_mac")
    return _columns(keys, listed)


@click.command()
@as_json
def pods(as_json: bool) -> None:  # noqa: FBT001
    """List this node's accelerated pods."""
    with open_maps(state_directory()) as maps:
        found = sorted(maps.pods().values(), key=lambda pod: pod.address.packed)
    listed = [documents.pod_document(pod, device_name) for pod in found]
    keys = ("address", "veth", "bridge", "mtu", "mac", "guarded")
    _print(listed, lambda listed: _columns(keys, listed), as_json=as_json)


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def flows(ctx: click.Context, as_json: bool) -> None:  # noqa: FBT001
    """List the flows that came out of the kernel path, or withdraw them all with `flush`."""
    if ctx.invoked_subcommand is None:
        with open_maps(state_directory()) as maps:
            _print(list(_flows(maps)), _flows_text, as_json=as_json)


@flows.command()
@as_json
def flush(as_json: bool) -> None:  # noqa: FBT001
    """Withdraw every approval: each flow goes through netfilter again before it is bypassed."""
    epoch = call(state_directory(), {"op": "flush"})["epoch"]
    _print({"epoch": epoch}, lambda done: f"epoch {done['epoch']}", as_json=as_json)


def _flows(maps: Maps) -> Iterator[Json]:
    settings = maps.settings()
    now = time.monotonic_ns()
    return (documents.flow_document(flow, settings, now) for flow in maps.flows())


def _flows_text(listed: list[Json]) -> str:
    rows = [
        (
            flow["protocol"],
            f"{flow['local']}:{flow['local_port']}",
            f"{flow['remote']}:{flow['remote_port']}",
            flow["out_age_seconds"],
            flow["in_age_seconds"],
            "withdrawn" if flow["withdrawn"] else "",
        )
        for flow in listed
    ]
    return table(("PROTOCOL", "LOCAL", "REMOTE", "OUT AGE s", "IN AGE s", ""), rows)


@click.command()
@as_json
def stats(as_json: bool) -> None:  # noqa: FBT001
    """Count packets by program and verdict, by peer, and the share that was bypassed."""
    with open_maps(state_directory()) as maps:
        document = documents.stats_document(maps.counters(), _peers(maps))
    _print(document, _stats_text, as_json=as_json)


def _stats_text(document: Json) -> str:
    rows = [
        (program, verdict, count["packets"], count["bytes"])
        for program, verdicts in document["programs"].items()
        for verdict, count in verdicts.items()
        if count["packets"]
    ]
    keys = ("cidr", "address", "tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
    total = document["bypassed"]["total"]
    share = "none to speak of" if total["share"] is None else f"{total['share']:.1%}"
    return "\n\n".join(
        [
            table(("PROGRAM", "VERDICT", "PACKETS", "BYTES"), rows),
            _columns(keys, document["peers"]),
            f"bypassed: {share} ({total['bypassed']:,} of {total['packets']:,} packets)",
        ]
    )


def _columns(keys: tuple[str, ...], listed: list[Json]) -> str:
    """Some of a list's keys as a table."""
    header = [key.upper().replace("_", " ") for key in keys]
    return table(header, [[row[key] for key in keys] for row in listed])
