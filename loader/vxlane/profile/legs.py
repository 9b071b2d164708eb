# SPDX-License-Identifier: Apache-2.0
"""The stretches of a packet's way that are measured, where, and how their histograms are cut.

Owns the numbers that packets.c is compiled with. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

SLOTS = 144
"""Of a histogram: four to each power of two, up to 2**37."""

TRACEPOINTS = {
    "netif_receive_skb": "no packet is followed",
    "net_dev_queue": "no packet is followed to the NIC, and none told from a bypassed one",
    "tcp_probe": "TCP's packets are followed only on their way out",
    "sk_data_ready": "UDP's packets are followed only on their way out",
    "kfree_skb": "a packet may be taken for one that was dropped, and be timed from then",
    "consume_skb": "a packet may be taken for one that is gone, and be timed from then",
    "tcp_retransmit_skb": "retransmits and unanswered SYNs are not counted",
}
"""What packets.c has a function for, and what the profile has not where a kernel lacks it."""


class Place(IntEnum):
    """Where a device stands."""

    POD = 1
    NIC = 2
    BETWEEN = 3


class Path(IntEnum):
    """Which way a packet took."""

    BYPASS = 0
    KERNEL = 1

    @property
    def label(self) -> str:
        """The key of `--json`, and the word of tables."""
        return self.name.lower()


class Leg(IntEnum):
    """From where to where; a pod's end is the host's end of its veth."""

    POD_TO_NIC = 0
    NIC_TO_TCP = 1
    NIC_TO_UDP = 2
    POD_TO_TCP = 3
    POD_TO_UDP = 4

    @property
    def label(self) -> str:
        """The key of `--json`."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """For people."""
        return _TITLES[self]


_TITLES = {
    Leg.POD_TO_NIC: "pod -> NIC",
    Leg.NIC_TO_TCP: "NIC -> pod's TCP",
    Leg.NIC_TO_UDP: "NIC -> pod's UDP",
    Leg.POD_TO_TCP: "pod -> pod's TCP",
    Leg.POD_TO_UDP: "pod -> pod's UDP",
}


def defines() -> dict[str, int]:
    """What packets.c is compiled with."""
    numbers = {
        f"{kind.__name__.upper()}_{member.name}": int(member)
        for kind in (Place, Path, Leg)
        for member in kind
    }
    return numbers | {"PATHS": len(Path), "LEGS": len(Leg), "SLOTS": SLOTS}


def bounds(slot: int) -> tuple[int, int]:
    """The values that a slot counts: from the first, up to and without the second."""
    if slot < 4:
        return slot, slot + 1
    power, quarter = divmod(slot, 4)
    return (4 + quarter) << (power - 1), (5 + quarter) << (power - 1)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The value below which `share` (0 to 1) of what was counted lies; None: nothing was.

    A slot's values are taken to lie evenly, so the result is at most an eighth of it wrong.
    """
    wanted = share * sum(counts)
    before = 0
    for slot, count in enumerate(counts):
        if count and before + count >= wanted:
            low, high = bounds(slot)
            return low + (high - low) * (wanted - before) / count
        before += count
    return None


def octaves(counts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The same histogram in powers of two: from, up to and without, count."""
    yield 0, 4, sum(counts[:4])
    for slot in range(4, len(counts), 4):
        yield bounds(slot)[0], bounds(slot + 3)[1], sum(counts[slot : slot + 4])
