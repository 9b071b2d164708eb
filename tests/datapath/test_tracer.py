# SPDX-License-Identifier: Apache-2.0
"""The tracer beside the programs: it changes nothing, and tells what it is asked for."""

from __future__ import annotations

import contextlib
import ctypes
import select
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import pytest
from bench import Bench
from frames import Tcp, Udp
from tables.case import Case, sent
from test_tables import CASES, STAMP, action, is_encapsulated, masked
from testrun import Context, Result
from world import APPROVED, POD, REMOTE, VETH
from worldmaps import put_note, stand

from vxlane.datapath import tracer
from vxlane.datapath.abi import Program, Verdict
from vxlane.datapath.records import mapped
from vxlane.datapath.tracer import Tracer, new_filter
from vxlane.trace import session
from vxlane.trace.event import Event
from vxlane.trace.follow import follow
from vxlane.trace.session import Session


@pytest.fixture(scope="module")
def looking(node, strict_bench: Bench) -> Iterator[Tracer]:
    """A tracer that stands in its place beside the strict programs."""
    made = node.chamber.run(Tracer, strict_bench.state, 1 << 20)
    placed = tracer.in_place(strict_bench.maps, made)
    node.chamber.run(placed.__enter__)
    yield made
    node.chamber.run(placed.__exit__, None, None, None)
    made.close()


def heard(looking: Tracer) -> list[Event]:
    """What was told since the last time."""
    return [Event.of(record) for record in looking.ring.read()]


def fill(array: Any, data: bytes) -> None:
    """Set an array of a ctypes struct."""
    ctypes.memmove(array, data, ctypes.sizeof(array))


def test_it_changes_nothing(strict_bench: Bench, looking: Tracer) -> None:
    """With a tracer every row of the tables has its action, its frame and its one counter; each is
    told with program and verdict.
    """
    wanted = new_filter()
    wanted.capture = 1 << 16
    for case in CASES:
        looking.ask(wanted)
        result, frame = run(strict_bench, case), bytes(case.frame)
        assert result.action == action(case.verdict, strict_bench.constants.strict), str(case)
        output = frame if case.output is None else bytes(case.output)
        if is_encapsulated(case):
            assert masked(result.frame) == masked(output), str(case)
        else:
            assert result.frame == output, str(case)
        (event,) = heard(looking)
        assert (event.program, event.verdict) == (case.program, case.verdict), str(case)
        assert event.data == result.frame[event.tunnel :], str(case)
        assert event.length == len(event.data)


def run(strict_bench: Bench, case: Case) -> Result:
    """Send the packet of a row through its program."""
    stand(strict_bench.maps, case.world)
    stamp = STAMP if case.note else 0
    if case.note:
        put_note(strict_bench.maps, case.note, stamp)
    return strict_bench.runners[case.program].run(bytes(case.frame), case.context(stamp))


def asking(looking: Tracer, fields: dict[str, Any]) -> None:
    """Ask for packets that are as `fields` of a struct trace_filter say."""
    wanted = new_filter()
    for name, value in fields.items():
        if isinstance(value, bytes):
            fill(getattr(wanted, name), value)
        else:
            setattr(wanted, name, value)
    looking.ask(wanted)


def described(event: Event) -> dict[str, Any]:
    """A filter that says all of a packet."""
    assert event.source
    assert event.destination
    fields = {
        "pod": mapped(event.source),
        "host": mapped(event.destination),
        "peer": mapped(event.destination),
        "peer_mask": b"\xff" * 16,
        "protocol": event.protocol,
    }
    if event.ports:
        flow = {
            "flow_local": mapped(event.destination),
            "flow_remote": mapped(event.source),
            "flow_local_port": event.ports[1],
            "flow_remote_port": event.ports[0],
        }
        fields |= {"port": event.ports[1]} | flow if event.protocol in {6, 17} else {}
    return fields


def otherwise(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same filter, with one field that is another's each time."""
    for name, value in fields.items():
        if isinstance(value, bytes) and name not in {"peer_mask", "flow_remote"}:
            yield fields | {name: value[:-1] + bytes([value[-1] ^ 1])}
        elif isinstance(value, int):
            yield fields | {name: value ^ 2}


def test_each_row_by_its_own_fields(strict_bench: Bench, looking: Tracer) -> None:
    """At each program and verdict a packet is told to whoever asks for just its addresses, ports
    and protocol, and to nobody who asks for one of them otherwise.
    """
    rows = {(case.program, case.verdict): case for case in CASES}
    for case in rows.values():
        asking(looking, {})
        run(strict_bench, case)
        (event,) = heard(looking)
        if not event.source or event.ethertype != 0x0800:
            continue
        fields = described(event)
        asking(looking, fields)
        run(strict_bench, case)
        assert len(heard(looking)) == 1, str(case)
        for other in otherwise(fields):
            asking(looking, other)
            run(strict_bench, case)
            assert not heard(looking), (str(case), other)


def test_a_tunnel_that_is_not_ours(strict_bench: Bench, looking: Tracer) -> None:
    """A pod's own VXLAN on our port is told as the packet that it is, to whoever asks for that."""
    (case,) = (case for case in CASES if case.fact == "a pod's own VXLAN, on our port")
    for port, tunnels in ((8472, [0]), (40001, [])):
        asking(looking, {"port": port})
        run(strict_bench, case)
        assert [event.tunnel for event in heard(looking)] == tunnels


PACKET = sent(Tcp(source=4000, dest=80, payload=b"x"))
OTHER = sent(Udp(source=4001, dest=53, payload=b"x"))


def told(strict_bench: Bench, looking: Tracer, fields: dict[str, Any]) -> set[str]:
    """Which of both packets are told."""
    stand(strict_bench.maps, APPROVED)
    asking(looking, fields)
    for frame in (PACKET, OTHER):
        strict_bench.runners[Program.FROM_POD].run(bytes(frame), Context(ifindex=VETH))
    names = {6: "tcp", 17: "udp"}
    return {names[event.protocol] for event in heard(looking)}


FLOW = {
    "flow_local": mapped(REMOTE),
    "flow_remote": mapped(POD.address),
    "flow_local_port": 80,
    "flow_remote_port": 4000,
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "both"),
        ({"protocol": 6}, "tcp"),
        ({"protocol": 1}, ""),
        ({"port": 80}, "tcp"),
        ({"port": 4001}, "udp"),
        ({"port": 81}, ""),
        ({"pod": mapped(POD.address)}, "both"),
        ({"pod": mapped(REMOTE + 1)}, ""),
        ({"host": mapped(REMOTE)}, "both"),
        ({"host": mapped(REMOTE + 1)}, ""),
        ({"peer": mapped(REMOTE), "peer_mask": b"\xff" * 16}, "both"),
        ({"peer": mapped(REMOTE + 1), "peer_mask": b"\xff" * 16}, ""),
        ({"verdicts": 1 << Verdict.FLOW_UNKNOWN}, "both"),
        ({"verdicts": 1 << Verdict.ENCAPSULATED}, ""),
        (FLOW, "tcp"),
        (FLOW | {"flow_remote_port": 4001}, ""),
        (FLOW | {"flow_local": mapped(REMOTE + 1)}, ""),
        (
            {name.replace("flow", "nat"): value for name, value in FLOW.items()}
            | {"flow_local": mapped(REMOTE + 1)},
            "tcp",
        ),
        ({"until": 1}, ""),
    ],
)
def test_filter(strict_bench: Bench, looking: Tracer, monkeypatch, fields, expected) -> None:
    """Of a TCP segment and a datagram those are told that are as the filter says; none after its
    lease.
    """
    if "until" in fields:
        monkeypatch.setattr(tracer, "LEASE", -1.0)
    found = told(strict_bench, looking, fields)
    assert found == {"both": {"tcp", "udp"}, "": set()}.get(expected, {expected})


@pytest.mark.parametrize("asked", [0, 40, 300, 3000])
def test_bytes(strict_bench: Bench, looking: Tracer, asked: int) -> None:
    """A packet of 3,554 bytes is captured up to the length that was asked for."""
    frame = bytes(sent(Udp(source=4001, dest=53, payload=bytes(range(250)) * 14)))
    wanted = new_filter()
    wanted.capture = asked
    looking.ask(wanted)
    stand(strict_bench.maps, APPROVED)
    strict_bench.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH))
    (event,) = heard(looking)
    assert event.data == frame[:asked]
    assert event.length == len(frame)


@pytest.mark.parametrize(
    "transport",
    [
        Tcp(source=4000, dest=80, options=bytes(12), payload=bytes(300)),
        Udp(source=4001, dest=53, payload=bytes(300)),
    ],
)
def test_segments(strict_bench: Bench, looking: Tracer, transport: Tcp | Udp) -> None:
    """A super-packet that a program leaves to be counted anew has as many segments as its payload
    takes.
    """
    looking.ask(new_filter())
    stand(strict_bench.maps, APPROVED)
    context = Context(ifindex=VETH, gso_size=100)
    strict_bench.runners[Program.FROM_POD].run(bytes(sent(transport)), context)
    (event,) = heard(looking)
    assert event.gso == (100, 3)


def test_ipv6(strict_bench: Bench, looking: Tracer) -> None:
    """A packet that is not the overlay's has its ends all the same."""
    ends = IPv6Address("fd00::1"), IPv6Address("fd00::2")
    udp = bytes.fromhex("0fa0 0035 0008 0000")
    packet = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + ends[0].packed + ends[1].packed + udp
    looking.ask(new_filter())
    stand(strict_bench.maps, APPROVED)
    frame = bytes(PACKET)[:12] + b"\x86\xdd" + packet
    strict_bench.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH))
    (event,) = heard(looking)
    assert (event.verdict, event.protocol, event.ports) == (Verdict.NOT_IP, 17, (4000, 53))
    assert (event.source, event.destination) == ends


def test_outer(strict_bench: Bench, looking: Tracer) -> None:
    """With the tunnel's headers a packet is captured whole; its ends are still the pods'."""
    case = next(case for case in CASES if case.verdict is Verdict.ENCAPSULATED)
    wanted = new_filter()
    wanted.capture, wanted.outer = 2048, 1
    looking.ask(wanted)
    stand(strict_bench.maps, case.world)
    frame = strict_bench.runners[case.program].run(bytes(case.frame), Context(ifindex=VETH)).frame
    (event,) = heard(looking)
    assert event.data == frame
    assert (event.source, event.destination) == (POD.address, REMOTE)
    assert (event.length, event.tunnel) == (len(frame) - 50, 50)


def test_what_a_killed_one_leaves(bench: Bench) -> None:
    """A tracer in the place and a free lock: the agent empties it, the next one takes it over."""
    with contextlib.closing(Tracer(bench.state, 4096)) as left:
        bench.maps.put_tracer(left.program)
        assert tracer.remove_abandoned(bench.state, bench.maps)
        assert not bench.maps.has_tracer()
        bench.maps.put_tracer(left.program)
        with tracer.sole_looker(bench.state), tracer.in_place(bench.maps, left):
            assert not tracer.remove_abandoned(bench.state, bench.maps)
            left.ask(new_filter())
            stand(bench.maps, APPROVED)
            bench.runners[Program.FROM_POD].run(bytes(PACKET), Context(ifindex=VETH))
            assert len(heard(left)) == 1
    assert not bench.maps.has_tracer()


def test_the_ring_goes_round(bench: Bench) -> None:
    """Records are read whole and in order however often the buffer's end is passed."""
    wanted = new_filter()
    wanted.capture = 256
    stand(bench.maps, APPROVED)
    with (
        contextlib.closing(Tracer(bench.state, 4096)) as looking,
        tracer.in_place(bench.maps, looking),
    ):
        for number in range(100):
            looking.ask(wanted)
            frame = bytes(sent(Udp(source=number, dest=53, payload=bytes([number]) * number)))
            bench.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH))
            (event,) = heard(looking)
            assert (event.ports, event.data) == ((number, 53), frame)
        assert looking.lost() == 0
        for _ in range(20):
            bench.runners[Program.FROM_POD].run(frame, Context(ifindex=VETH))
        assert looking.lost() == 20 - len(heard(looking)) > 0


def test_the_reader_is_woken_by_a_quarter_of_the_buffer(bench: Bench) -> None:
    """One packet wakes nobody, for the reader looks by the clock; 1 KiB of a buffer of 4 does."""
    stand(bench.maps, APPROVED)
    with (
        contextlib.closing(Tracer(bench.state, 4096)) as looking,
        tracer.in_place(bench.maps, looking),
        select.epoll() as waiting,
    ):
        waiting.register(looking.ring.fileno(), select.EPOLLIN | select.EPOLLET)
        looking.ask(new_filter())
        bench.runners[Program.FROM_POD].run(bytes(PACKET), Context(ifindex=VETH))
        assert not waiting.poll(0.02)
        for _ in range(19):
            bench.runners[Program.FROM_POD].run(bytes(PACKET), Context(ifindex=VETH))
        assert waiting.poll(10)
        assert len(heard(looking)) == 20


def test_replaced_programs_end_a_look(bench: Bench, monkeypatch) -> None:
    """A session whose place is not the one that the programs look into now is cut short; it also
    counts how long its lease was over.
    """
    monkeypatch.setattr(session, "_RENEW_EVERY", 0.05)
    monkeypatch.setattr(session, "LEASE", 0.0)
    pin = bench.pins / "tracer"
    with Session(bench.state, bench.maps, new_filter(), 4096) as looking:
        pin.rename(pin.with_name("aside"))
        try:
            outcome = follow(looking, lambda _: None, None)
        finally:
            pin.with_name("aside").rename(pin)
        assert outcome.is_cut_short
        assert outcome.unseen > 0
    assert not bench.maps.has_tracer()


def test_a_look_that_is_ended_while_its_lease_is_over(bench: Bench, monkeypatch) -> None:
    """What was not seen is told also if the end comes before the lease is renewed."""
    monkeypatch.setattr(session, "_RENEW_EVERY", 60.0)
    monkeypatch.setattr(session, "LEASE", 0.0)
    with Session(bench.state, bench.maps, new_filter(), 4096) as looking:
        looking.end()
        assert looking.unseen > 0
