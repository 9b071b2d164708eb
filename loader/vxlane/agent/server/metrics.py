# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics: read from the maps, and from what the agent says of itself, at each scrape.

Imported only when the port is on: prometheus_client takes 11 MB. Counters of packets are in pinned
maps, so a restart of the agent does not reset them. Counters of what the agent did start with it.
No label holds a pod's address or a flow. Names and units follow
prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vxlane.agent.server import agent_metrics, map_metrics
from vxlane.agent.server.http import Answer, Response
from vxlane.agent.server.status import StatusStore
from vxlane.datapath.abi import ABI
from vxlane.datapath.census import Evictions, flow_census, usage
from vxlane.datapath.maps import Maps
from vxlane.datapath.runtime import run_times
from vxlane.errors import VxlaneError


def answer(pins: Path, statuses: StatusStore) -> Answer:
    """The answers to scrapes, from the maps below `pins` and from the agent's status."""
    registry = CollectorRegistry()
    registry.register(AgentCollector(pins, statuses))

    def respond(_: str, headers: Mapping[str, str]) -> Response:
        encode, kind = choose_encoder(headers.get("accept", ""))
        body, named = encode(registry), {"Content-Type": kind}
        if "gzip" in headers.get("accept-encoding", ""):
            body, named = gzip.compress(body, 1), {**named, "Content-Encoding": "gzip"}
        return Response(body, headers=named)

    return respond


class AgentCollector(Collector):
    """Gathers all metrics of one node."""

    def __init__(self, pins: Path, statuses: StatusStore) -> None:
        self._pins = pins
        self._statuses = statuses
        self._evictions = Evictions()

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read maps that are not there yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        build = {"version": version("vxlane"), "contract": str(ABI)}
        yield InfoMetricFamily("vxlane_build", "The agent's version, and its maps'.", value=build)
        if status := self._statuses.latest:
            yield from agent_metrics.of_status(status)
        if tally := self._statuses.tally:
            yield from agent_metrics.of_tally(tally)
        try:
            maps = Maps.open(self._pins)
        except (FileNotFoundError, VxlaneError):
            return
        with maps:
            yield from self._of_maps(maps)
        yield from map_metrics.of_run_times(run_times(self._pins))

    def _of_maps(self, maps: Maps) -> Iterator[Metric]:
        peers = maps.peers()
        yield from map_metrics.of_counters(maps.counters())
        yield from map_metrics.of_peers(peers, maps.peer_counts(), self._statuses.node_names())
        census = flow_census(maps, maps.settings(), time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        self._evictions.look(maps, census)
        yield from map_metrics.of_flows(census, self._evictions)
        entries = usage(maps, peers=len(peers), flows=census.total)
        yield from map_metrics.of_usage(entries, {name: maps.capacity(name) for name in entries})
