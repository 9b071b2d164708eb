# SPDX-License-Identifier: Apache-2.0
"""How much of a probe's traffic was bypassed, by the record of its flow. Pure.

Counters are of the whole node, and other pods' packets are among them. A flow's record has a time
for each half: when a packet of that direction last came out of the kernel path. A round trip that
began after both was bypassed there and back, if the flow was bypassed at all. The programs read a
clock that moves with the kernel's tick, so what began within a tick after is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vxlane.datapath.records import Flow, IPAddress, Settings

PACE = 0.005
"""Seconds from one round trip to the next, so that a tick is a few of them."""

_TICK = 10_000_000
"""ns. The longest that kernels are built with (CONFIG_HZ=100)."""

_USED_PRECISION = 1_000_000_000
"""ns by which a record's `used` may lag behind (USED_PRECISION in bpf/flow.h)."""


@dataclass(frozen=True, slots=True)
class Trips:
    """Round trips of one flow between the probe pod and `remote`."""

    protocol: int
    local: IPAddress
    remote: IPAddress
    port: int
    """The probe's port, or of ICMP the identifier."""
    begun: Sequence[int]
    """When each began, ns of CLOCK_MONOTONIC."""


def record_of(flows: Iterable[Flow], trips: Trips) -> Flow | None:
    """The flow's record, None: there is none."""
    for flow in flows:
        ends = flow.tuple
        is_same = (ends.protocol, ends.local, ends.remote) == (
            trips.protocol,
            trips.local,
            trips.remote,
        )
        if is_same and ends.local_port == trips.port:
            return flow
    return None


def count(flow: Flow | None, trips: Trips, settings: Settings) -> int:
    """How many of the round trips were bypassed both ways, at least."""
    if flow is None or flow.epoch != settings.epoch or not (flow.seen_out and flow.seen_in):
        return 0
    if flow.used < trips.begun[0] - _USED_PRECISION:
        return 0
    approved = max(flow.seen_out, flow.seen_in) + _TICK
    return sum(begun > approved for begun in trips.begun)
