# SPDX-License-Identifier: Apache-2.0
"""Rates from two samples of a node: what `vxlane top` shows. Pure.

docs/json.md documents the keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum

from vxlane.datapath.abi import Program
from vxlane.datapath.records import Peer, PeerCount
from vxlane.datapath.runtime import RunTime
from vxlane.datapath.shares import ENTRANCES, Counters
from vxlane.host.traffic import Traffic
from vxlane.show.documents import Json, bypassed_document, subtract
from vxlane.show.slow import slow


class Order(Enum):
    """What rows are sorted by."""

    PACKETS = "packets"
    BYTES = "bytes"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class PodSample:
    """One pod's veth and what went through it."""

    name: str
    addresses: tuple[str, ...]
    veth: str
    guarded: tuple[str, ...]
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Sample:
    """A node at one moment."""

    at: float
    """Seconds, CLOCK_MONOTONIC."""
    is_bypassing: bool
    counters: Counters
    peers: Mapping[int, tuple[Peer, PeerCount]]
    """By slot."""
    pods: Mapping[int, PodSample]
    """By ifindex of the veth."""
    run_times: Mapping[Program, RunTime]
    notes: tuple[str, ...] = ()
    """What these figures lack, in sentences."""


def rates_document(before: Sample, after: Sample, order: Order) -> Json:
    """What happened from one sample to the next, for each second."""
    seconds = after.at - before.at
    moved = subtract(after.counters, before.counters)
    total = bypassed_document(moved)["total"]
    document = {
        "seconds": round(seconds, 3),
        "bypassing": after.is_bypassing,
        "share": total["share"],
        "packets_per_second": _rate(total["packets"], seconds),
        "bypassed_per_second": _rate(total["bypassed"], seconds),
        "verdicts": _verdicts(moved, total["packets"], seconds, order),
        "pods": _sorted(_pods(before, after, seconds), order),
        "peers": _sorted(_peers(before, after, seconds), order),
        "programs": _programs(before.run_times, after.run_times, seconds),
    }
    return document | {"slow": slow(document), "notes": list(after.notes)}


def matching(document: Json, text: str) -> Json:
    """Only the rows that have `text` in a name, an address or a verdict; sums stay those of all."""
    wanted = text.lower()
    return document | {
        part: [row for row in document[part] if wanted in _words(row)]
        for part in ("verdicts", "pods", "peers")
    }


def _words(row: Json) -> str:
    lists = [" ".join(value) for value in row.values() if isinstance(value, list)]
    texts = [value for value in row.values() if isinstance(value, str)]
    return " ".join([*texts, *lists]).lower()


def _verdicts(moved: Counters, packets: int, seconds: float, order: Order) -> list[Json]:
    """What became of packets at the entrances, where each counts once."""
    rows = [
        {
            "name": f"{entrance.label} {verdict.label}",
            "program": entrance.label,
            "verdict": verdict.label,
            "kind": verdict.kind.value,
            "packets_per_second": _rate(count.packets, seconds),
            "bytes_per_second": _rate(count.bytes, seconds),
            "share": round(count.packets / packets, 6) if packets else None,
        }
        for entrance in ENTRANCES
        for verdict, count in moved[entrance].items()
        if count.packets > 0
    ]
    rows = _sorted(rows, order)
    return [{key: value for key, value in row.items() if key != "name"} for row in rows]


def _pods(before: Sample, after: Sample, seconds: float) -> list[Json]:
    return [
        {
            "name": pod.name,
            "addresses": list(pod.addresses),
            "veth": pod.veth,
            "guarded": list(pod.guarded),
            **_directions(before.pods[ifindex].traffic, pod.traffic, seconds),
        }
        for ifindex, pod in after.pods.items()
        if ifindex in before.pods
    ]


def _peers(before: Sample, after: Sample, seconds: float) -> list[Json]:
    """A slot that another peer has taken over meanwhile says nothing of either."""
    return [
        {
            "name": str(peer.cidr),
            "address": str(peer.address),
            "reachable": bool(peer.ifindex),
            **_directions(before.peers[slot][1], count, seconds),
        }
        for slot, (peer, count) in after.peers.items()
        if slot in before.peers and before.peers[slot][0].cidr == peer.cidr
    ]


def _programs(
    before: Mapping[Program, RunTime], after: Mapping[Program, RunTime], seconds: float
) -> list[Json]:
    """Of the programs that the kernel has counted runs of meanwhile."""
    rows = []
    for program, now in after.items():
        spent = now.since(before.get(program, RunTime(0, 0)))
        if spent.runs > 0:
            rows.append(
                {
                    "program": program.label,
                    "runs_per_second": _rate(spent.runs, seconds),
                    "ns_per_run": round(spent.nanoseconds / spent.runs, 1),
                }
            )
    return rows


def _directions(
    before: Traffic | PeerCount, after: Traffic | PeerCount, seconds: float
) -> dict[str, float]:
    return {
        f"{field.name}_per_second": _rate(
            getattr(after, field.name) - getattr(before, field.name), seconds
        )
        for field in fields(after)
    }


def _rate(count: int, seconds: float) -> float:
    """Not below zero: a counter may have begun anew."""
    return round(max(0, count) / seconds, 1)


def _sorted(rows: Sequence[Json], order: Order) -> list[Json]:
    """The busiest first, or by name; of equals the first by name."""
    named = sorted(rows, key=lambda row: str(row["name"]))
    if order is Order.NAME:
        return named
    return sorted(named, key=lambda row: _amount(row, order), reverse=True)


def _amount(row: Json, order: Order) -> float:
    unit = f"{order.value}_per_second"
    return float(sum(value for key, value in row.items() if key.endswith(unit)))
