# SPDX-License-Identifier: Apache-2.0
"""How full maps are and in which states flow records are: counted, or estimated from a part."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from socket import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP

import pytest
from memorymaps import Bpf, in_memory

from vxlane.datapath import census, syscall
from vxlane.datapath.abi import HEADER
from vxlane.datapath.census import Evictions, FlowState, flow_census, flow_state, usage
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import STRUCTS, Flow, Settings

MAP_CREATE, LRU_HASH, DEVMAP_HASH = 0, 9, 25
SECOND = 1_000_000_000
NOW = 1000 * SECOND
YOUNG, OLD = NOW - SECOND, NOW - 50 * SECOND
REMOTE, LOCAL = (HEADER.enums["translated"][f"TRANSLATED_{name}"] for name in ("REMOTE", "LOCAL"))
SETTINGS = Settings(
    lease_until=0,
    revalidate=20 * SECOND,
    revalidate_datagram=10 * SECOND,
    address=IPv4Address("192.168.77.1"),
    epoch=5,
    vtep_mac="02:00:00:00:00:01",
    has_direct=False,
    judged=False,
    judged_nat=False,
)


def key(number: int, protocol: int = IPPROTO_TCP) -> bytes:
    """A flow's key, another one for each number."""
    made = STRUCTS["flow_key"](protocol=protocol)
    made.high[3] = number
    return bytes(made)


def record(out: int, into: int, **fields: int) -> bytes:
    """A record whose halves came out of the kernel path then, in the epoch that is now."""
    return bytes(STRUCTS["flow"](**{"seen_out": out, "seen_in": into, "epoch": 5, **fields}))


def decoded(raw: bytes, value: bytes) -> Flow:
    """The record as the maps give it; one that is renamed goes by an address of its own."""
    flow = STRUCTS["flow"].from_buffer_copy(value)
    flow.nat_local[3] = 9 if flow.translated == LOCAL else 0
    flow.nat_local_port = 0 if flow.translated == LOCAL else 1024
    return Flow.of(STRUCTS["flow_key"].from_buffer_copy(raw), flow)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> tuple[Maps, Bpf]:
    """Maps in memory."""
    return in_memory(monkeypatch)


@pytest.mark.parametrize(
    ("protocol", "value", "state"),
    [
        (IPPROTO_TCP, record(YOUNG, YOUNG, open=1), FlowState.APPROVED),
        (IPPROTO_TCP, record(YOUNG, YOUNG), FlowState.LEARNING),
        (IPPROTO_TCP, record(YOUNG, 0, open=1), FlowState.LEARNING),
        (IPPROTO_TCP, record(YOUNG, OLD, open=1), FlowState.LEARNING),
        (IPPROTO_TCP, record(OLD, OLD, open=1), FlowState.AGED),
        (IPPROTO_TCP, record(0, 0, open=1), FlowState.ENDED),
        (IPPROTO_TCP, record(YOUNG, YOUNG, open=1, epoch=4), FlowState.WITHDRAWN),
        (IPPROTO_UDP, record(YOUNG, 0), FlowState.APPROVED),
        (IPPROTO_UDP, record(NOW - 15 * SECOND, 0), FlowState.AGED),
        (IPPROTO_UDP, record(YOUNG, 0, translated=REMOTE, confirmed=1), FlowState.AGED),
        (IPPROTO_UDP, record(NOW, 0, translated=REMOTE, confirmed=1), FlowState.APPROVED),
        (IPPROTO_UDP, record(NOW, 0, translated=REMOTE), FlowState.LEARNING),
        (IPPROTO_UDP, record(NOW, 0, translated=LOCAL, confirmed=1), FlowState.LEARNING),
        (IPPROTO_UDP, record(NOW, NOW, translated=LOCAL, confirmed=1), FlowState.APPROVED),
        (IPPROTO_ICMP, record(YOUNG, 0), FlowState.LEARNING),
        (IPPROTO_ICMP, record(YOUNG, YOUNG), FlowState.APPROVED),
    ],
)
def test_a_records_state_is_what_the_programs_make_of_it(
    memory: tuple[Maps, Bpf], protocol: int, value: bytes, state: FlowState
) -> None:
    """Halves, their ages, epoch and protocol decide as flow_admit() does; translated is told. One
    record alone has the state that it is counted in.
    """
    maps, bpf = memory
    bpf.entries["flows"] = {key(1, protocol): value}
    is_translated = bool(STRUCTS["flow"].from_buffer_copy(value).translated)
    counted = {kind: n for kind, n in flow_census(maps, SETTINGS, NOW).records.items() if n}
    assert counted == {(state, is_translated): 1}
    assert flow_state(decoded(key(1, protocol), value), SETTINGS, NOW) is state


def test_the_time_that_approvals_hold_is_the_settings(memory: tuple[Maps, Bpf]) -> None:
    """TCP's and that of datagrams, apart from each other."""
    maps, bpf = memory
    bpf.entries["flows"] = {
        key(1): record(OLD, OLD, open=1),
        key(2, IPPROTO_UDP): record(OLD, OLD),
    }
    longer = replace(SETTINGS, revalidate=60 * SECOND)
    assert flow_census(maps, longer, NOW).count(FlowState.APPROVED) == 1


def test_what_a_full_map_puts_out_is_estimated(memory: tuple[Maps, Bpf]) -> None:
    """Approved flows that are gone by the next look; in a map with room they only ended."""
    maps, bpf = memory
    flows = {key(n): record(YOUNG, YOUNG, open=1) for n in range(60)}
    evictions = Evictions()
    for kept, capacity, total in ((60, 64, 0), (45, 64, 15), (30, 4096, 15), (30, 64, 15)):
        bpf.entries["flows"] = dict(list(flows.items())[:kept])
        bpf.capacity["flows"] = capacity
        evictions.look(maps, flow_census(maps, SETTINGS, NOW))
        assert evictions.total == total


def test_no_more_than_a_sample_is_asked_for_again(
    memory: tuple[Maps, Bpf], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gone of it goes for all approved flows; others are no matter."""
    monkeypatch.setattr(census, "SAMPLE", 10)
    maps, bpf = memory
    flows = {key(n): record(YOUNG, YOUNG, open=1) for n in range(40)}
    bpf.entries["flows"] = flows | {key(99): record(0, 0)}
    evictions = Evictions()
    evictions.look(maps, flow_census(maps, SETTINGS, NOW))
    for gone in (0, 1, 30, 31, 32, 99):
        del bpf.entries["flows"][key(gone)]
    evictions.look(maps, flow_census(maps, SETTINGS, NOW))
    assert evictions.total == 40 * 2 / 10


@pytest.fixture
def make_flows(_machine: None) -> Iterator[Callable[[int], Maps]]:
    """Make a map of so many flows, as the kernel keeps it; there are no other maps."""
    made: list[Maps] = []

    def make(entries: int) -> Maps:
        sizes = [len(key(0)), len(record(0, 0))]
        fd, _ = syscall._bpf(MAP_CREATE, struct.pack("=IIIII", LRU_HASH, *sizes, entries, 0))
        made.append(Maps({"flows": fd}))
        return made[-1]

    yield make
    for maps in made:
        maps.close()


def put(maps: Maps, numbers: range) -> None:
    """Approve these flows."""
    for number in numbers:
        syscall.map_update(maps._fds["flows"], key(number), record(YOUNG, YOUNG, open=1))


def test_many_records_are_estimated_from_a_part(
    make_flows: Callable[[int], Maps], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12,000 a third is read, and the kernel's buckets tell how many there are."""
    maps = make_flows(50_000)
    put(maps, range(12_000))
    assert flow_census(maps, SETTINGS, NOW).total == 12_000
    monkeypatch.setattr(census, "MOST", 4_000)
    read: list[int] = []
    states = census._states
    monkeypatch.setattr(
        census, "_states", lambda page, *rest: read.append(page.count) or states(page, *rest)
    )
    found = flow_census(maps, SETTINGS, NOW)
    assert 4_000 <= sum(read) < 6_000
    assert found.count(FlowState.APPROVED) == found.total
    # Five standard deviations.
    assert found.total == pytest.approx(12_000, rel=0.07)


def test_a_full_map_of_the_kernel_evicts(make_flows: Callable[[int], Maps]) -> None:
    """An LRU that is given twice as many flows as it holds loses what was approved first."""
    maps, evictions = make_flows(1_000), Evictions()
    put(maps, range(500))
    evictions.look(maps, flow_census(maps, SETTINGS, NOW))
    put(maps, range(500, 2_500))
    lost = sum(not maps.has_flow(key(number)) for number in range(500))
    evictions.look(maps, flow_census(maps, SETTINGS, NOW))
    assert evictions.total == lost > 0


@pytest.fixture
def _one_cpu() -> Iterator[None]:
    """Stay on one CPU: each has its own list of the elements that an LRU gives away next."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.mark.usefixtures("_one_cpu")
def test_looking_keeps_no_flow_alive(make_flows: Callable[[int], Maps]) -> None:
    """A look counts for no use of a record: else an LRU would keep what nobody sends."""
    looked, left = make_flows(1_000), make_flows(1_000)
    for maps in (looked, left):
        put(maps, range(800))
    for _ in range(3):
        flow_census(looked, SETTINGS, NOW)
        assert all(looked.has_flow(key(number)) for number in range(800))
    for maps in (looked, left):
        put(maps, range(800, 2_800))
    kept = [sum(maps.has_flow(key(number)) for number in range(800)) for maps in (looked, left)]
    assert kept[0] == kept[1]


def test_every_map_is_counted(memory: tuple[Maps, Bpf]) -> None:
    """Each that can become full; arrays, as settings, notes and counters are, are always whole."""
    maps, bpf = memory
    bpf.entries["translations"] = {key(n): key(n) for n in range(3)}
    bpf.entries["veths"] = {struct.pack("=I", n): struct.pack("=I", n) for n in range(2)}
    assert usage(maps, peers=4, flows=6) == {
        "peers": 4,
        "vteps": 0,
        "pods": 0,
        "interfaces": 0,
        "veths": 2,
        "flows": 6,
        "translations": 3,
        "resets": 0,
    }
    arrays = {"settings", "drafts", "notes", "turns", "counters", "peer_counters", "tracer"}
    assert usage(maps, peers=4, flows=6).keys() | arrays == bpf.entries.keys()


@pytest.mark.usefixtures("_machine")
def test_a_devmap_is_counted() -> None:
    """The kernel reads none in batches, so its keys are walked."""
    fd, _ = syscall._bpf(MAP_CREATE, struct.pack("=IIIII", DEVMAP_HASH, 4, 4, 8, 0))
    counts = [syscall.map_count(fd, 4)]
    syscall.devmap_put(fd, 1)
    counts.append(syscall.map_count(fd, 4))
    os.close(fd)
    assert counts == [0, 1]
