# SPDX-License-Identifier: Apache-2.0
"""A profile as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.profile.document import Json, axis
from vxlane.profile.legs import Leg, Path
from vxlane.show.table import table

_LEGS = ("LEG", "PATH", "PACKETS", "P50 us", "P90 us", "P99 us", "MAX us", "BYTES", "SEGS")
_PROGRAMS = ("PROGRAM", "RUNS", "ns/RUN", "% OF A CPU")
_CPUS = ("CPU", "user %", "system %", "irq %", "softirq %", "steal %", "idle %", "NET_RX", "NET_TX")
_LOSSES = ("TO", "RETRANSMITS", "UNANSWERED SYNS")
_BAR = 15


def text(profile: Json) -> str:
    """All of it."""
    whose = f"pod {profile['pod']}" if profile["pod"] else "all pods"
    parts = [
        f"{profile['seconds']:g} s, {whose}",
        *(f"missing: {sentence}" for sentence in profile["missing"]),
        _latency(profile["latency"]),
        *(_histogram(leg, profile["latency"][leg.label]) for leg in used(profile["latency"])),
        *_programs(profile["programs"]),
        _machine(profile["machine"]),
        _losses(profile["losses"]),
    ]
    return "\n\n".join(parts)


def used(latency: Json) -> Iterator[Leg]:
    """The legs on which a packet was followed to the end."""
    for leg in Leg:
        if any(figures["packets"] for figures in latency[leg.label].values()):
            yield leg


def _latency(latency: Json) -> str:
    rows = [
        (
            leg.title,
            path.label,
            (figures := latency[leg.label][path.label])["packets"],
            *(us(figures[key]) for key in ("p50_ns", "p90_ns", "p99_ns", "longest_ns")),
            *(_plain(figures[f"{what}_per_packet"]) for what in ("bytes", "segments")),
        )
        for leg in used(latency)
        for path in Path
    ]
    return table(_LEGS, rows) if rows else "no packet of a pod was followed to an end"


def us(nanoseconds: int | None) -> float | None:
    """Microseconds, as people read them."""
    return None if nanoseconds is None else round(nanoseconds / 1000, 1)


def _plain(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _histogram(leg: Leg, paths: Json) -> str:
    """Both paths side by side, a line for each power of two of nanoseconds."""
    bars = {path: {bar["from"]: bar for bar in paths[path.label]["histogram_ns"]} for path in Path}
    head = "  ".join(path.label.ljust(_BAR + 11) for path in Path).rstrip()
    lines = [f"{leg.title + ', us':24}{head}"]
    for low, high in axis(paths, "histogram_ns"):
        columns = (_bar(low, bars[path], paths[path.label]["packets"]) for path in Path)
        lines.append(f"{low / 1000:9.1f} - {high / 1000:<9.1f}   {'  '.join(columns)}".rstrip())
    return "\n".join(lines)


def _bar(low: int, bars: dict[int, Json], packets: int) -> str:
    count = bars[low]["packets"] if low in bars else 0
    length = round(_BAR * count / packets) if packets else 0
    return f"{count:9,} |{'#' * length:{_BAR}}"


def _programs(programs: Json) -> Iterator[str]:
    if programs:
        rows = [
            (name, cost["runs"], cost["ns_per_run"], round(cost["cpu_share"] * 100, 2))
            for name, cost in programs.items()
        ]
        yield table(_PROGRAMS, rows)


def _machine(machine: Json) -> str:
    rows = [
        (
            name,
            *(
                round(shares[state] * 100, 1)
                for state in ("user", "system", "irq", "softirq", "steal", "idle")
            ),
            shares.get("net_rx"),
            shares.get("net_tx"),
        )
        for name, shares in (
            *((str(cpu["cpu"]), cpu) for cpu in machine["cpus"]),
            ("all", machine["total"]),
        )
    ]
    lost = f"backlog: {machine['dropped']:,} dropped; {machine['squeezed']:,} rounds cut short"
    return f"{table(_CPUS, rows)}\n{lost}"


def _losses(losses: list[Json]) -> str:
    if not losses:
        return "no retransmits and no unanswered SYNs"
    return table(
        _LOSSES, [(row["remote"], row["retransmits"], row["unanswered_syns"]) for row in losses]
    )
