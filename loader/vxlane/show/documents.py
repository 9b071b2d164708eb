# SPDX-License-Identifier: Apache-2.0
"""What `--json` prints: plain dictionaries, documented in docs/json.md.

Tables are made of the same documents, so that a person and a program never see different things.
Pure: from the maps' dataclasses to numbers and strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vxlane.datapath.abi import Guard, Program, Verdict
from vxlane.datapath.census import flow_state
from vxlane.datapath.records import Count, Flow, IPAddress, Peer, PeerCount, Pod, Settings
from vxlane.datapath.shares import ENTRANCES, Counters, bypassed_of

Json = dict[str, Any]

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}
_SECOND = 1_000_000_000


def peer_document(peer: Peer, count: PeerCount, nic: Callable[[int], str]) -> Json:
    """One peer; `nic` names a device by its ifindex."""
    return {
        "cidr": str(peer.cidr),
        "address": str(peer.address),
        "vtep_mac": peer.vtep_mac,
        "way": peer.way.name.lower(),
        "next_hop": str(peer.next_hop) if peer.ifindex else None,
        "nic": nic(peer.ifindex) if peer.ifindex else None,
        "mtu": peer.mtu,
        **asdict(count),
    }


def pod_document(pod: Pod, veth: Callable[[int], str], names: Mapping[IPAddress, str]) -> Json:
    """One pod; `veth` names a device by its ifindex."""
    return {
        "name": names.get(pod.address, str(pod.address)),
        "address": str(pod.address),
        "mac": pod.mac,
        "veth": veth(pod.ifindex),
        "bridge": veth(pod.bridge) if pod.bridge else None,
        "gateway_mac": pod.gateway_mac,
        "mtu": pod.mtu,
        "guarded": [(guard.name or "").lower() for guard in Guard if guard & pod.guard],
    }


def flow_document(flow: Flow, settings: Settings, now: int, names: Mapping[IPAddress, str]) -> Json:
    """One flow; `now` in ns of CLOCK_MONOTONIC, as the flow's own times are."""
    return {
        "protocol": _PROTOCOLS.get(flow.tuple.protocol, str(flow.tuple.protocol)),
        "local": str(flow.tuple.local),
        "local_port": flow.tuple.local_port,
        "remote": str(flow.tuple.remote),
        "remote_port": flow.tuple.remote_port,
        "out_age_seconds": _age(flow.seen_out, now),
        "in_age_seconds": _age(flow.seen_in, now),
        "translated": _translation(flow),
        "state": flow_state(flow, settings, now).value,
        "withdrawn": flow.epoch != settings.epoch,
        "pod": names.get(flow.tuple.local),
        "remote_pod": names.get(flow.behind.remote),
    }


def _translation(flow: Flow) -> Json | None:
    """The same flow behind netfilter, if that is another one."""
    if flow.behind == flow.tuple:
        return None
    return {
        "local": str(flow.behind.local),
        "local_port": flow.behind.local_port,
        "remote": str(flow.behind.remote),
        "remote_port": flow.behind.remote_port,
    }


def _age(seen: int, now: int) -> float | None:
    return round((now - seen) / _SECOND, 3) if seen else None


def programs_document(settings: Settings, now: int, *, peers: int, pods: int, flows: int) -> Json:
    """The settings of the programs, and the sizes of their maps' content."""
    return {
        "lease_seconds": round(max(0, settings.lease_until - now) / _SECOND, 3),
        "bypassing": settings.lease_until > now,
        "revalidate_seconds": settings.revalidate / _SECOND,
        "epoch": settings.epoch,
        "address": str(settings.address),
        "vtep_mac": settings.vtep_mac,
        "peers": peers,
        "pods": pods,
        "flows": flows,
    }


def stats_document(counters: Counters, peers: Iterable[Json]) -> Json:
    """Every counter, by program and verdict; and the bypassed share, in, out and in total."""
    return {
        "programs": {
            program.label: {
                verdict.label: asdict(counters[program][verdict]) for verdict in Verdict
            }
            for program in Program
        },
        "peers": list(peers),
        "bypassed": bypassed_document(counters),
    }


def bypassed_document(counters: Counters) -> Json:
    """Bypassed packets and all packets of the overlay, by entrance and in `total`."""
    documents = {entrance.label: _bypassed(counters, [entrance]) for entrance in ENTRANCES}
    return documents | {"total": _bypassed(counters, ENTRANCES)}


def _bypassed(counters: Counters, entrances: Sequence[Program]) -> Json:
    bypassed, packets = bypassed_of(counters, entrances)
    return {
        "bypassed": bypassed,
        "packets": packets,
        "share": round(bypassed / packets, 6) if packets else None,
    }


def subtract(later: Counters, earlier: Counters) -> dict[Program, dict[Verdict, Count]]:
    """The difference of two readings."""
    return {
        program: {
            verdict: Count(
                count.packets - earlier[program][verdict].packets,
                count.bytes - earlier[program][verdict].bytes,
            )
            for verdict, count in verdicts.items()
        }
        for program, verdicts in later.items()
    }


def add(readings: Iterable[Counters]) -> dict[Program, dict[Verdict, Count]]:
    """Several nodes' counters as one."""
    total = {program: dict.fromkeys(Verdict, Count(0, 0)) for program in Program}
    for reading in readings:
        for program, verdicts in reading.items():
            for verdict, count in verdicts.items():
                before = total[program][verdict]
                total[program][verdict] = Count(
                    before.packets + count.packets, before.bytes + count.bytes
                )
    return total
