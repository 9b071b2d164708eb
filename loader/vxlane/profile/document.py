# SPDX-License-Identifier: Apache-2.0
"""What `--json` prints, of which table and page are made: plain numbers and strings. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vxlane.datapath.abi import Program
from vxlane.datapath.runtime import RunTime
from vxlane.host.machine import STATES, Cpu, Machine
from vxlane.profile.legs import SLOTS, Leg, Path, octaves, quantile

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """One leg by one path, as tracing.py answers it. Times in ns, both histograms by slot."""

    packets: int = 0
    bytes: int = 0
    segments: int = 0
    longest: int = 0
    latencies: Sequence[int] = ()
    sizes: Sequence[int] = ()


def latency(legs: Iterable[Json]) -> Json:
    """Figures by leg and path; without packets they are there too."""
    found: Json = {leg.label: {path.label: leg_document(Counted()) for path in Path} for leg in Leg}
    for seen in legs:
        fields = {name: value for name, value in seen.items() if name not in {"leg", "path"}}
        found[seen["leg"]][seen["path"]] = leg_document(Counted(**fields))
    return found


def leg_document(seen: Counted) -> Json:
    """One leg by one path."""
    packets = seen.packets
    return {
        "packets": packets,
        **{f"p{percent}_ns": _quantile(seen, percent) for percent in (50, 90, 99)},
        "longest_ns": seen.longest if packets else None,
        "bytes_per_packet": round(seen.bytes / packets, 1) if packets else None,
        "segments_per_packet": round(seen.segments / packets, 2) if packets else None,
        "histogram_ns": _bars(seen.latencies),
        "histogram_bytes": _bars(seen.sizes),
    }


def _quantile(seen: Counted, percent: int) -> int | None:
    value = quantile(seen.latencies, percent / 100)
    return None if value is None else min(round(value), seen.longest)


def _bars(counts: Sequence[int]) -> list[Json]:
    """The powers of two that anything was counted of, and those between."""
    bars = [{"from": low, "below": high, "packets": count} for low, high, count in octaves(counts)]
    used = [number for number, bar in enumerate(bars) if bar["packets"]]
    return bars[used[0] : used[-1] + 1] if used else []


def axis(paths: Mapping[str, Json], key: str) -> list[tuple[int, int]]:
    """The powers of two, from and below, that both paths' histograms of this key lie in."""
    lows = [bar["from"] for figures in paths.values() for bar in figures[key]]
    if not lows:
        return []
    return [(low, high) for low, high, _ in octaves([0] * SLOTS) if min(lows) <= low <= max(lows)]


def programs(costs: Mapping[Program, RunTime], seconds: float) -> Json:
    """What each program's runs cost."""
    return {
        program.label: {
            "runs": cost.runs,
            "ns_per_run": round(cost.nanoseconds / cost.runs, 1) if cost.runs else None,
            "cpu_share": round(cost.nanoseconds / 1e9 / seconds, 6),
        }
        for program, cost in costs.items()
    }


def machine(before: Machine, after: Machine) -> Json:
    """What the CPUs did between two readings. One that came or went meanwhile is left out."""
    both = sorted(before.cpus.keys() & after.cpus.keys())
    shares = {cpu: _shares([before.cpus[cpu]], [after.cpus[cpu]]) for cpu in both}
    return {
        "total": _shares([before.cpus[cpu] for cpu in both], [after.cpus[cpu] for cpu in both]),
        "cpus": [
            {
                "cpu": cpu,
                **shares[cpu],
                "net_rx": after.cpus[cpu].net_rx - before.cpus[cpu].net_rx,
                "net_tx": after.cpus[cpu].net_tx - before.cpus[cpu].net_tx,
            }
            for cpu in both
        ],
        "dropped": after.dropped - before.dropped,
        "squeezed": after.squeezed - before.squeezed,
    }


def _shares(before: Sequence[Cpu], after: Sequence[Cpu]) -> dict[str, float]:
    """Each state's share of the time, 0 to 1. A counter of idle time may step back."""
    spent = {
        state: max(
            0,
            sum(cpu.ticks.get(state, 0) for cpu in after)
            - sum(cpu.ticks.get(state, 0) for cpu in before),
        )
        for state in STATES
    }
    total = sum(spent.values())
    return {state: round(ticks / total, 4) if total else 0.0 for state, ticks in spent.items()}


def losses(retransmits: Iterable[Json], peer_of: Callable[[str], str | None]) -> list[Json]:
    """By peer, most first. `peer_of` gives the CIDR that an address is of, None for no peer's:
    a Service's address, a pod's of this node, or one outside. Those are told one by one.
    """
    found: dict[tuple[str | None, str], dict[str, int]] = defaultdict(
        lambda: {"retransmits": 0, "unanswered_syns": 0}
    )
    for seen in retransmits:
        peer = peer_of(seen["remote"])
        kind = "unanswered_syns" if seen["is_syn"] else "retransmits"
        found[peer, peer or seen["remote"]][kind] += seen["count"]
    listed = [
        {"peer": peer, "remote": remote, **counts} for (peer, remote), counts in found.items()
    ]
    return sorted(listed, key=lambda row: (-sum_of(row), row["remote"]))


def sum_of(row: Json) -> int:
    """All of a row of `losses`."""
    return int(row["retransmits"] + row["unanswered_syns"])
