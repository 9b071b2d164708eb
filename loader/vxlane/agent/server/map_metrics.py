# SPDX-License-Identifier: Apache-2.0
"""The metrics of the programs and their maps. Pure: from what was read to families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.census import Evictions, FlowCensus
from vxlane.datapath.records import Count, IPNetwork, Peer, PeerCount
from vxlane.datapath.runtime import RunTime


def of_counters(counters: Mapping[Program, Mapping[Verdict, Count]]) -> Iterator[Metric]:
    """Every verdict of every program, also those that are 0."""
    labels = ["program", "verdict", "kind"]
    packets = CounterMetricFamily("vxlane_packets", "Packets by outcome.", labels=labels)
    octets = CounterMetricFamily("vxlane_bytes", "Bytes by outcome.", labels=labels)
    for program, verdicts in counters.items():
        for verdict, count in verdicts.items():
            named = [program.label, verdict.label, verdict.kind.value]
            packets.add_metric(named, count.packets)
            octets.add_metric(named, count.bytes)
    yield packets
    yield octets


def of_peers(
    peers: Mapping[IPNetwork, Peer],
    counts: Mapping[int, PeerCount],
    names: Mapping[IPNetwork, str],
) -> Iterator[Metric]:
    """What the bypass carried for each peer. Peers without traffic are left out.

    `counts` are by slot, `names` of nodes by pod CIDR.
    """
    labels = ["peer", "node", "direction"]
    packets = CounterMetricFamily("vxlane_peer_packets", "Packets bypassed.", labels=labels)
    octets = CounterMetricFamily("vxlane_peer_bytes", "Bytes bypassed.", labels=labels)
    for cidr, peer in peers.items():
        count = counts.get(peer.slot)
        if count is None or not (count.tx_packets or count.rx_packets):
            continue
        named = [str(cidr), names.get(cidr, "")]
        packets.add_metric([*named, "out"], count.tx_packets)
        packets.add_metric([*named, "in"], count.rx_packets)
        octets.add_metric([*named, "out"], count.tx_bytes)
        octets.add_metric([*named, "in"], count.rx_bytes)
    yield packets
    yield octets


def of_flows(census: FlowCensus, evictions: Evictions) -> Iterator[Metric]:
    """The records of flows by their states, and those that a full map has evicted."""
    flows = GaugeMetricFamily(
        "vxlane_flows",
        "Records of flows; estimated where there are more than 32,768.",
        labels=["state", "translated"],
    )
    for (state, is_translated), count in census.records.items():
        flows.add_metric([state.value, "yes" if is_translated else "no"], count)
    yield flows
    yield CounterMetricFamily(
        "vxlane_flow_evictions",
        "Approved flows that a full map has put out for others; estimated from 1,000 per scrape.",
        value=evictions.total,
    )


def of_usage(entries: Mapping[str, int], capacities: Mapping[str, int]) -> Iterator[Metric]:
    """How full the maps are that can become full."""
    pressure = GaugeMetricFamily(
        "vxlane_map_pressure_ratio",
        "Entries of a map, of those it can hold; estimated where there are more than 32,768.",
        labels=["map"],
    )
    most = GaugeMetricFamily("vxlane_map_max_entries", "Entries a map can hold.", labels=["map"])
    for name, count in entries.items():
        pressure.add_metric([name], min(1.0, count / capacities[name]))
        most.add_metric([name], capacities[name])
    yield pressure
    yield most


def of_run_times(run_times: Mapping[Program, RunTime]) -> Iterator[Metric]:
    """The run time of each program whose runs the kernel has counted."""
    seconds = CounterMetricFamily(
        "vxlane_program_run_seconds",
        "Time in a program, while kernel.bpf_stats_enabled is 1.",
        labels=["program"],
    )
    runs = CounterMetricFamily(
        "vxlane_program_runs",
        "Runs of a program, while kernel.bpf_stats_enabled is 1.",
        labels=["program"],
    )
    for program, run_time in run_times.items():
        seconds.add_metric([program.label], run_time.nanoseconds / 1e9)
        runs.add_metric([program.label], run_time.runs)
    yield seconds
    yield runs
