# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics: read from the maps, and from what the agent says of itself, at each scrape.

Imported only when the port is on: prometheus_client is 11 MB. Counters live in pinned maps, so an
agent's restart does not begin them anew. No label holds a pod's address or a flow.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vxlane.agent.server.http import Answer, Response
from vxlane.datapath.maps import Maps
from vxlane.errors import VxlaneError

Status = Callable[[], dict[str, Any] | None]
"""The agent's latest status document; None before the first."""

_GAUGES = {
    "ready": "Whether the node's network is up.",
    "peers": "Peers that packets can be sent to.",
    "pods": "Pods that are accelerated.",
    "epoch": "Raised whenever all approvals are withdrawn.",
    "source_age_seconds": "Since the source of nodes was last known to be right.",
}


def answer(pins: Path, status: Status) -> Answer:
    """What is answered to scrapes: the maps below `pins`, and the agent's status."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(pins, status))

    def respond(_: str, headers: Mapping[str, str]) -> Response:
        encode, kind = choose_encoder(headers.get("accept", ""))
        body, named = encode(registry), {"Content-Type": kind}
        if "gzip" in headers.get("accept-encoding", ""):
            body, named = gzip.compress(body, 1), {**named, "Content-Encoding": "gzip"}
        return Response(body, headers=named)

    return respond


class AgentCollector(Collector):
    """Gathers all metrics of one node."""

    def __init__(self, pins: Path, status: Status) -> None:
        self._pins = pins
        self._status = status

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read maps that are not there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        if status := self._status():
            yield from _of_agent(status)
        try:
            maps = Maps.open(self._pins)
        except (FileNotFoundError, VxlaneError):
            return
        with maps:
            yield from _of_programs(maps)
            yield from _of_peers(maps)


def _of_agent(status: dict[str, Any]) -> Iterator[Metric]:
    info = {key: str(status[key]) for key in ("node", "mode", "bypass")}
    yield InfoMetricFamily("vxlane", "This node's agent.", value=info)
    for name, help_ in _GAUGES.items():
        if status[name] is not None:
            yield GaugeMetricFamily(f"vxlane_{name}", help_, value=float(status[name]))
    yield GaugeMetricFamily(
        "vxlane_problems", "Nodes or entries that can't be used.", value=len(status["problems"])
    )
    yield GaugeMetricFamily(
        "vxlane_failures", "What the last reconcile could not do.", value=len(status["failures"])
    )
    mechanisms = GaugeMetricFamily(
        "vxlane_mechanisms", "Rules and devices that act on every packet.", labels=["flows"]
    )
    judging = [each["flows"] for each in status["mechanisms"] if not each["ignored"]]
    for flows in ("all", "translated"):
        mechanisms.add_metric([flows], judging.count(flows))
    yield mechanisms
    yield GaugeMetricFamily(
        "vxlane_source_up", "Whether the source can be read.", value=not status["source_error"]
    )
    yield CounterMetricFamily(
        "vxlane_reconciles", "How often state was compared.", value=status["reconciles"]
    )


def _of_programs(maps: Maps) -> Iterator[Metric]:
    labels = ["program", "verdict"]
    packets = CounterMetricFamily("vxlane_packets", "Packets by outcome.", labels=labels)
    octets = CounterMetricFamily("vxlane_bytes", "Bytes by outcome.", labels=labels)
    for program, verdicts in maps.counters().items():
        for verdict, count in verdicts.items():
            packets.add_metric([program.label, verdict.label], count.packets)
            octets.add_metric([program.label, verdict.label], count.bytes)
    yield packets
    yield octets


def _of_peers(maps: Maps) -> Iterator[Metric]:
    """What the bypass carried for each peer; peers without traffic are left out."""
    labels = ["peer", "direction"]
    packets = CounterMetricFamily("vxlane_peer_packets", "Packets bypassed.", labels=labels)
    octets = CounterMetricFamily("vxlane_peer_bytes", "Bytes bypassed.", labels=labels)
    counts = maps.peer_counts()
    for cidr, peer in maps.peers().items():
        count = counts.get(peer.slot)
        if count is None or not (count.tx_packets or count.rx_packets):
            continue
        packets.add_metric([str(cidr), "out"], count.tx_packets)
        packets.add_metric([str(cidr), "in"], count.rx_packets)
        octets.add_metric([str(cidr), "out"], count.tx_bytes)
        octets.add_metric([str(cidr), "in"], count.rx_bytes)
    yield packets
    yield octets
