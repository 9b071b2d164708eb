# SPDX-License-Identifier: Apache-2.0
"""How many packets of the overlay there were, and how many were bypassed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vxlane.datapath.abi import Program, Verdict, VerdictKind
from vxlane.datapath.records import Count

Counters = Mapping[Program, Mapping[Verdict, Count]]

ENTRANCES = (Program.FROM_POD, Program.FROM_NIC)
"""Where a packet may be bypassed. Each packet is counted at one of them; the other programs count
what stays on the kernel path a second time."""


def bypassed_of(counters: Counters, entrances: Sequence[Program] = ENTRANCES) -> tuple[int, int]:
    """Bypassed packets, and all packets of the overlay, at these entrances."""
    counts = [
        (verdict.kind, count.packets)
        for entrance in entrances
        for verdict, count in counters[entrance].items()
        if verdict.kind is not VerdictKind.FOREIGN
    ]
    packets = sum(packets for _, packets in counts)
    if Program.FROM_POD in entrances:
        packets += sum(counters[program][Verdict.TRANSLATED].packets for program in Program)
    return sum(packets for kind, packets in counts if kind is VerdictKind.BYPASSED), packets
