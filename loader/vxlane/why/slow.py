# SPDX-License-Identifier: Apache-2.0
"""`vxlane flows --slow`: the busiest flows that are not bypassed, and why.

conntrack sees what takes the kernel path and nothing else. So what it has counted of a connection
is what was slow of it; where it counts nothing, it still knows when it last saw a packet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from vxlane.datapath.abi import Verdict
from vxlane.datapath.records import Tuple
from vxlane.host.connections import Connection, counts
from vxlane.why.answer import Json, flow_document
from vxlane.why.node import ask, notes, opened
from vxlane.why.reader import Reader, tuple_of
from vxlane.why.reasons import Agent

MOST = 20

_OVER = frozenset({"last_ack", "time_wait", "close"})
"""States of a TCP connection that carries nothing any more."""
_FAST = frozenset({"bypassed", Verdict.FLOW_AGED.label})
"""An aged flow is an idle one: its next packet renews the approval."""

BY_BYTES = "bytes that netfilter saw since the connection began"
BY_RECENCY = (
    "time since netfilter last saw a packet, for conntrack counts none; 'sysctl -w"
    " net.netfilter.nf_conntrack_acct=1' has it count connections that begin after it"
)


def slow_flows(state: Path) -> Json:
    """The document of `vxlane flows --slow`."""
    with opened(state) as reader:
        agent, has_counters = ask(state), counts()
        order = _by_bytes if has_counters else partial(_by_recency, reader)
        found = sorted(_connections(reader), key=order)
        slow = (document for each in found if (document := _slow(reader, *each, agent)))
        return {
            "order": BY_BYTES if has_counters else BY_RECENCY,
            "flows": list(islice(slow, MOST)),
            "notes": notes(agent),
        }


def _connections(reader: Reader) -> Iterator[tuple[Tuple, Connection]]:
    """What pods of this node take part in and has not ended, as whoever began it sends."""
    for connection in reader.kernel.connections():
        original, answered = connection.original, connection.reply.reversed
        if connection.state in _OVER:
            continue
        if original.local in reader.pods:
            yield tuple_of(original), connection
        elif connection.reply.local in reader.pods:
            yield tuple_of(answered), connection


def _slow(reader: Reader, sent: Tuple, connection: Connection, agent: Agent) -> Json | None:
    """None: it is bypassed in each direction that has packets."""
    document = flow_document(reader, sent, connection, agent)
    directions = [document, document["back"]] if connection.is_answered else [document]
    slow = next((each for each in directions if each["verdict"] not in _FAST), None)
    if slow is None:
        return None
    traffic = connection.traffic
    return {
        **document,
        **{key: slow[key] for key in ("verdict", "reason", "command", "page")},
        "packets": traffic.packets if traffic else None,
        "bytes": traffic.bytes if traffic else None,
        "idle_seconds": reader.kernel.idle_seconds(connection),
    }


def _by_bytes(found: tuple[Tuple, Connection]) -> float:
    traffic = found[1].traffic
    return -traffic.bytes if traffic else 1


def _by_recency(reader: Reader, found: tuple[Tuple, Connection]) -> float:
    idle = reader.kernel.idle_seconds(found[1])
    return math.inf if idle is None else idle
