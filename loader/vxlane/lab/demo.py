# SPDX-License-Identifier: Apache-2.0
"""Both paths side by side: the same traffic on the kernel path and on the bypass, in turns.

The paths take turns in beginning, so other work of the machine meets both alike. For the kernel
path the agents switch the bypass off, as a lease that runs out does; programs stay attached between
rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vxlane.datapath.maps import Maps
from vxlane.datapath.programs import pin_directory
from vxlane.datapath.shares import Counters
from vxlane.lab import service, traffic
from vxlane.lab.figure import Better, Figure
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LabNode
from vxlane.lab.report import DataPath, Findings
from vxlane.lab.traffic import Ends
from vxlane.show import documents
from vxlane.show.node import call

NODES, KERNEL_NODES, PODS = 3, 1, 2
"""The lab that `pairs` needs."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure and the traffic that yields it, given how long it may take, seconds."""

    figure: Figure
    run: Callable[[Ends, float], float]
    is_tcp: bool = False
    to_services: bool = True
    """Whether a Service has it."""


MEASURES = (
    Measure(
        Figure("ping, round trip", "us", Better.LESS),
        lambda ends, _: traffic.ping(ends),
        to_services=False,
    ),
    Measure(
        Figure("TCP, one flow", "Gbit/s", Better.MORE),
        lambda ends, seconds: traffic.tcp(ends, seconds=seconds) / 1e9,
        is_tcp=True,
    ),
    Measure(
        Figure("UDP, 64 bytes", "k/s", Better.MORE),
        lambda ends, seconds: traffic.udp(ends, seconds=seconds) / 1e3,
    ),
    Measure(
        # Half the time: sockperf takes two seconds more to warm up.
        Figure("TCP ping-pong, one way", "us", Better.LESS),
        lambda ends, seconds: traffic.latency(ends, seconds=seconds / 2),
        is_tcp=True,
    ),
    Measure(
        # Not counted as TCP: most of their packets open and close connections.
        Figure("short connections", "k/s", Better.MORE),
        lambda ends, seconds: traffic.connections(ends, seconds=seconds) / 1e3,
    ),
)
BY_SERVICE = "by a Service"
"""The pair whose client calls the virtual address of the other."""


def pairs(lab: Lab) -> dict[str, Ends]:
    """The pairs of pods that are measured, by what a pair shows."""
    source = f"{lab.name}-node1-pod1"
    targets = {
        "of two nodes": f"{lab.name}-node2-pod1",
        "of one node": f"{lab.name}-node1-pod2",
        "to a kernel-only node": f"{lab.name}-node3-pod1",
    }
    address = {pod.name: str(pod.address) for pod in lab.pods}
    found = {name: Ends(source, target, address[target]) for name, target in targets.items()}
    # A pod of its own: conntrack moves the port of a connection that would be another's behind NAT.
    target = f"{lab.name}-node2-pod2"
    return {**found, BY_SERVICE: Ends(source, target, str(service.VIRTUAL))}


def run(
    lab: Lab, *, rounds: int, seconds: float, progress: Callable[[str], None]
) -> list[Findings]:
    """Measure every pair in every round. LabError: a transfer failed."""
    backend = lab.pod(pairs(lab)[BY_SERVICE].target)
    service.provide(f"{lab.name}-node1", backend.address)
    findings = {name: Findings(name) for name in pairs(lab)}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        paths = list(DataPath) if number % 2 == 0 else list(reversed(DataPath))
        for name, ends in pairs(lab).items():
            for path in paths:
                _take(lab.accelerated(), path)
                _measure(lab.accelerated(), ends, path, seconds=seconds, findings=findings[name])
    return list(findings.values())


def _take(nodes: Iterable[LabNode], path: DataPath) -> None:
    """Make all packets take this path from now on."""
    for node in nodes:
        call(node.directory, {"op": "bypass", "enabled": path is DataPath.BYPASS})


def _measure(
    nodes: Sequence[LabNode], ends: Ends, path: DataPath, *, seconds: float, findings: Findings
) -> None:
    for measure in MEASURES:
        if findings.pair == BY_SERVICE and not measure.to_services:
            continue
        before = _counters(nodes)
        value = measure.run(ends, seconds)
        findings.values.setdefault((measure.figure, path), []).append(value)
        if measure.is_tcp:
            counted = documents.subtract(_counters(nodes), before)
            findings.tcp_counters.setdefault(path, []).append(counted)


def _counters(nodes: Iterable[LabNode]) -> Counters:
    """The counters of all nodes as one."""
    readings = []
    for node in nodes:
        with Maps.open(pin_directory(node.directory)) as maps:
            readings.append(maps.counters())
    return documents.add(readings)
