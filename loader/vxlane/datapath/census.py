# SPDX-License-Identifier: Apache-2.0
"""Counts the entries of the maps, and the flow records in each state.

To read a million records takes a second. So only a limited number is read, and the rest is
estimated: a hash spreads its keys evenly over its buckets, so the first buckets are a fair sample.
Other threads can run after each page, and a page of 4,096 flow records takes 2 ms.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from socket import IPPROTO_TCP, IPPROTO_UDP

from vxlane.datapath.abi import HEADER
from vxlane.datapath.admission import longest
from vxlane.datapath.batches import Page, cut
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import STRUCTS, Flow, Settings
from vxlane.datapath.syscall import possible_cpus

MOST = 32_768
"""Entries that are read at most (40 ms for flow records). Up to that number the counts are exact.
Beyond it the count of a state with a tenth of all records has a standard deviation of 2 %."""
SAMPLE = 1_000
"""Approved flows of which the next census asks whether they are still there."""

_HASHES = ("vteps", "pods", "interfaces", "translations", "resets")
_KEY, _FLOW = STRUCTS["flow_key"], STRUCTS["flow"]
_KEY_SIZE, _FLOW_SIZE = ctypes.sizeof(_KEY), ctypes.sizeof(_FLOW)
_REMOTE = HEADER.enums["translated"]["TRANSLATED_REMOTE"]
_LOCAL = HEADER.enums["translated"]["TRANSLATED_LOCAL"]
_Record = tuple[int, int, int, int, int, int, int]
"""Epoch, seen_out and seen_in; protocol; open, translated and confirmed, as in struct flow."""
_FREE_ON_A_CPU = 128
"""Entries that each CPU keeps free for itself (LOCAL_FREE_TARGET in kernel/bpf/bpf_lru_list.c): an
LRU evicts before its last entry is taken."""


class FlowState(Enum):
    """What a record means for the next packet of its flow; see flow_admit() in bpf/flow.h."""

    APPROVED = "approved"
    """Its packets are bypassed, at least in one direction."""
    LEARNING = "learning"
    """Some packets have come out of the kernel path, and more must before one is bypassed."""
    AGED = "aged"
    """No packet has come out of the kernel path for so long that the approval has expired."""
    WITHDRAWN = "withdrawn"
    """Learned in an earlier epoch."""
    ENDED = "ended"
    """A RST has passed, or a SYN opens the connection again. The last ACK of a connection removes
    its record."""


@dataclass(frozen=True, slots=True)
class FlowCensus:
    """The number of records by state and by whether netfilter translates the flow."""

    records: dict[tuple[FlowState, bool], int]
    approved: tuple[bytes, ...]
    """Keys of some approved flows."""

    def count(self, state: FlowState) -> int:
        """Records in a state, translated or not."""
        return self.records[state, True] + self.records[state, False]

    @property
    def total(self) -> int:
        """Records in any state."""
        return sum(self.records.values())


def usage(maps: Maps, *, peers: int, flows: int) -> dict[str, int]:
    """The entries of each map that can become full. The caller has counted two of them."""
    counts = {name: _count(maps, name) for name in _HASHES}
    return {"peers": peers, "flows": flows, "veths": maps.veths(), **counts}


def _count(maps: Maps, name: str) -> int:
    look = _Look(maps, name)
    return look.scaled(sum(page.count for page in look))


class _Look:
    """Reads the first pages of a hash, and keeps which share of its buckets they were."""

    def __init__(self, maps: Maps, name: str) -> None:
        self._pages = maps.pages(name)
        self._buckets = _power_of_two(maps.capacity(name))
        self._share = 1.0

    def __iter__(self) -> Iterator[Page]:
        read = 0
        for page in self._pages:
            read += page.count
            yield page
            if read >= MOST and not page.is_last:
                self._share = page.next_bucket / self._buckets
                return

    def scaled(self, count: int) -> int:
        """The estimate for the whole map, from the `count` in the pages that were read."""
        return round(count / self._share)


def _power_of_two(entries: int) -> int:
    """The buckets of a hash for so many entries (htab_map_alloc() in kernel/bpf/hashtab.c)."""
    return 1 << (entries - 1).bit_length()


def flow_census(maps: Maps, settings: Settings, now: int) -> FlowCensus:
    """The states of the flow records at `now` (CLOCK_MONOTONIC, ns)."""
    look = _Look(maps, "flows")
    found: Counter[tuple[FlowState, bool]] = Counter()
    approved: list[bytes] = []
    for page in look:
        states = list(_states(page, settings, now))
        found.update(states)
        if len(approved) < SAMPLE:
            keys = zip(cut(page.keys, _KEY_SIZE), states, strict=True)
            some = (key for key, (state, _) in keys if state is FlowState.APPROVED)
            approved += islice(some, SAMPLE - len(approved))
    every = ((state, is_translated) for state in FlowState for is_translated in (True, False))
    return FlowCensus({kind: look.scaled(found[kind]) for kind in every}, tuple(approved))


def _states(page: Page, settings: Settings, now: int) -> Iterator[tuple[FlowState, bool]]:
    """The state of each record, and whether it is translated.

    It works on columns, because a Python object for each record would take ten times as long.
    """
    numbers, words = memoryview(page.values).cast("Q"), memoryview(page.values).cast("I")
    columns = zip(
        words[_FLOW.epoch.offset // 4 :: _FLOW_SIZE // 4].tolist(),
        numbers[_FLOW.seen_out.offset // 8 :: _FLOW_SIZE // 8].tolist(),
        numbers[_FLOW.seen_in.offset // 8 :: _FLOW_SIZE // 8].tolist(),
        page.keys[_KEY.protocol.offset :: _KEY_SIZE],
        page.values[_FLOW.open.offset :: _FLOW_SIZE],
        page.values[_FLOW.translated.offset :: _FLOW_SIZE],
        page.values[_FLOW.confirmed.offset :: _FLOW_SIZE],
        strict=True,
    )
    for record in columns:
        *_, translated, _ = record
        yield _state(record, settings, now), bool(translated)


def flow_state(flow: Flow, settings: Settings, now: int) -> FlowState:
    """The state of one record, as `flow_census` counts it."""
    translated = 0
    if flow.behind != flow.tuple:
        translated = _REMOTE if flow.behind.local == flow.tuple.local else _LOCAL
    halves = flow.epoch, flow.seen_out, flow.seen_in
    record = *halves, flow.tuple.protocol, flow.is_open, translated, flow.is_confirmed
    return _state(record, settings, now)


def _state(record: _Record, settings: Settings, now: int) -> FlowState:
    epoch, seen_out, seen_in, protocol, is_open, translated, is_confirmed = record
    if not seen_out and not seen_in:
        return FlowState.ENDED
    if epoch != settings.epoch:
        return FlowState.WITHDRAWN
    most = longest(settings, protocol, is_translated=bool(translated))
    fresh = (now - seen_out < most) + (now - seen_in < most)
    if not fresh:
        return FlowState.AGED
    needed = 1 if protocol == IPPROTO_UDP and translated != _LOCAL else 2
    is_complete = is_open if protocol == IPPROTO_TCP else is_confirmed or not translated
    return FlowState.APPROVED if fresh >= needed and is_complete else FlowState.LEARNING


class Evictions:
    """Estimates how many approved flows a full map has evicted.

    The kernel does not count evictions. So each census looks for some approved flows of the one
    before. The share of them that is gone is taken for the share of all. Flows that are approved
    and evicted between two censuses are missed. The end of a connection deletes a record, too, so
    evictions are only counted while the map is full.
    """

    def __init__(self) -> None:
        self.total = 0
        """Flows, since the first census."""
        self._asked: tuple[bytes, ...] = ()
        self._of = 0

    def look(self, maps: Maps, census: FlowCensus) -> None:
        """Add the flows that were evicted since the last census."""
        if self._asked and self._is_full(maps, census):
            gone = sum(not maps.has_flow(key) for key in self._asked)
            self.total += round(self._of * gone / len(self._asked))
        self._asked, self._of = census.approved, census.count(FlowState.APPROVED)

    @staticmethod
    def _is_full(maps: Maps, census: FlowCensus) -> bool:
        free = _FREE_ON_A_CPU * possible_cpus()
        # A total that is estimated may be some percent too small.
        return census.total >= 0.95 * maps.capacity("flows") - free
