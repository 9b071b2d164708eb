# SPDX-License-Identifier: Apache-2.0
"""`vxlane why`: what keeps a flow from being bypassed."""

from __future__ import annotations

import click

from vxlane.cli import complete
from vxlane.cli.common import Json, as_json, emit, examples
from vxlane.show.table import pairs, table
from vxlane.util.places import state_directory
from vxlane.why import node
from vxlane.why.ends import PROTOCOLS

_HEADER = ("PROTOCOL", "SOURCE", "DESTINATION", "VERDICT", "NEXT PACKET", "BACK")


@click.command(
    epilog=examples(
        "vxlane why 10.42.1.2 10.42.2.7:5432",
        "vxlane why veth1a2b3c4d 10.96.0.10:53 --proto udp --json | jq '.flows[].next'",
    )
)
@click.argument("source", metavar="SRC[:PORT]", shell_complete=complete.pods)
@click.argument("destination", metavar="DST[:PORT]", shell_complete=complete.pods)
@click.option(
    "--proto",
    type=click.Choice(list(PROTOCOLS)),
    help="Only flows of this protocol. Without it a new flow is taken to be TCP.",
)
@as_json
def why(source: str, destination: str, proto: str | None, as_json: bool) -> None:  # noqa: FBT001 (a flag is click's)
    """Explain why packets from SRC to DST are not bypassed.

    SRC and DST are addresses of pods or of a Service, or names or veths that `vxlane pods` lists.
    One of them must be a pod of this node. The answer is about each flow between the two; give
    ports to ask about one, or an ICMP echo's identifier as SRC's port. If there is no flow, the
    answer is about a new one.

    The answer has the verdict, its reason, a command that fixes it or shows more, and what the next
    packet meets at which program, there and back. It is about a usual packet: one with IP options,
    a firewall mark or a TTL that ends here takes the kernel path. docs/verdicts has a page on each
    verdict.
    """
    emit(node.why(state_directory(), source, destination, proto), _text, as_json=as_json)


def _text(document: Json) -> str:
    flows, notes = document["flows"], document["notes"]
    shown = _one(flows[0]) if len(flows) == 1 else _several(flows)
    return "\n".join([shown, *(f"note: {note}" for note in notes)])


def _one(flow: Json) -> str:
    lines: Json = {"flow": f"{_ends(flow)} {flow['protocol']}"}
    if flow["source_pod"] or flow["destination_pod"]:
        lines["pods"] = f"{flow['source_pod'] or '-'} -> {flow['destination_pod'] or '-'}"
    if flow["translated"]:
        lines["translated"] = _ends(flow["translated"])
    lines |= {key: flow[key] for key in ("verdict", "reason", "command", "page")}
    lines["next packet"] = f"{_next(flow)} ({flow['next']['packet']})"
    if flow["largest_packet"]:
        lines["too big"] = f"an IP packet of more than {flow['largest_packet']:,} bytes"
    lines["back"] = _next(flow["back"])
    if flow["back"]["verdict"] not in {"bypassed", flow["verdict"]}:
        lines["back"] += f": {flow['back']['reason']}"
    return pairs(lines)


def _several(flows: list[Json]) -> str:
    rows = [
        (
            flow["protocol"],
            _end(flow, "source"),
            _end(flow, "destination"),
            flow["verdict"],
            _next(flow),
            _next(flow["back"]),
        )
        for flow in flows
    ]
    protocols = {flow["protocol"] for flow in flows}
    lines = [table(_HEADER, rows)]
    if protocols - {"icmp"}:
        lines.append("Give both ports to see the reason for one.")
    if "icmp" in protocols:
        # An echo has an identifier, and no ports.
        lines.append("Give SOURCE as it stands here to see the reason for one echo.")
    return "\n".join(lines)


def _next(direction: Json) -> str:
    met = direction["next"]
    return f"{met['program']}: {met['verdict']}" if met["program"] else "no program sees it"


def _ends(flow: Json) -> str:
    return f"{_end(flow, 'source')} -> {_end(flow, 'destination')}"


def _end(flow: Json, which: str) -> str:
    """An end with its port; of an echo the identifier stands at its sender, and no type."""
    port = flow[f"{which}_port"]
    is_type = flow.get("protocol") == "icmp" and which == "destination"
    return f"{flow[which]}:{port}" if port and not is_type else str(flow[which])
