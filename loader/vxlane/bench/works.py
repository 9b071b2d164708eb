# SPDX-License-Identifier: Apache-2.0
"""The works: each a kind of traffic, the figures that it yields, and what runs it.

Bulk TCP is iperf3's. Small traffic is talk's (talk.c). CPU time is that of the whole machine,
divided by what was carried.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vxlane.bench import apps, cpu, plan, talk
from vxlane.bench.ends import End, Ends
from vxlane.bench.model import CPU_EACH, P50, P99, RATE, SOFTIRQ_EACH, Placement, Taken
from vxlane.bench.setting import PORTS, Setting, new_port
from vxlane.bench.snmp import socket_drops
from vxlane.errors import LabError
from vxlane.lab.figure import Better, Figure

MORE, LESS, NEITHER = Better.MORE, Better.LESS, Better.NEITHER

_THROUGHPUT = Figure("throughput", "Gbit/s", MORE)
_CPU_GB = Figure("CPU per GB", "s", LESS)
_SOFTIRQ_GB = Figure("softirq per GB", "s", LESS)
_P999 = Figure("p99.9", "us", LESS)
_LOST = Figure("lost on the way", "%", NEITHER)
_UNREAD = Figure("dropped at the socket", "%", NEITHER)
_CPU = Figure("CPU", "% of a CPU", LESS)
_SOFTIRQ = Figure("softirq", "% of a CPU", LESS)

_BULK = (_THROUGHPUT, _CPU_GB, _SOFTIRQ_GB)
_ASKED = (P50, P99, _P999, CPU_EACH, SOFTIRQ_EACH)
_POURED = (RATE, _LOST, _UNREAD)
_CONNECTED = (RATE, P50, P99, CPU_EACH, SOFTIRQ_EACH)

FIXED_RATE = 20_000
"""Datagrams a second: a rate that every path carries on a small machine."""
_FIXED_SIZE = 512
_SLOW_FLOWS, _SLOW_EVERY = 1000, 1.0
_FLOOD_SIZE = 64
_FLOOD_MORE = 30.0
"""Seconds: it begins before the requests' server, and is ended after them."""


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of traffic."""

    name: str
    figures: tuple[Figure, ...]
    run: Callable[[Setting], Taken]
    is_long: bool = True
    """Nearly all of its packets can be bypassed."""
    tools: tuple[str, ...] = ()
    """Programs it needs that scripts/setup does not install."""


def figures(work: Work, placement: Placement, ends: Ends) -> Iterator[Figure]:
    """What a work yields between these ends; on two machines each side's CPU time too. CPUs that
    are kept awake tell no CPU time.
    """
    for figure in work.figures:
        if not figure.name.startswith(("CPU", "softirq")):
            yield figure
        elif placement is not Placement.AWAKE:
            yield figure
            if len(ends.machines) > 1:
                yield from (cpu.of_side(figure, side) for side in cpu.SIDES)


def _bulk(flows: int) -> Callable[[Setting], Taken]:
    """TCP from the client to the server."""

    def run(setting: Setting) -> Taken:
        port = str(new_port())
        server = setting.server("iperf3", "--server", "--port", port)
        client = setting.client(
            *bulk_client(setting.ends.address, port, flows, setting.seconds, setting.congestion)
        )
        with setting.serving(int(port), server):
            before = cpu.read(setting.ends)
            said = setting.run(client)
            used = cpu.read(setting.ends) - before
        received = received_of(said)
        gigabytes = received["bytes"] / 1e9
        values = {
            _THROUGHPUT.name: received["bits_per_second"] / 1e9,
            **used.values(_CPU_GB, _SOFTIRQ_GB, 1 / gigabytes),
        }
        return Taken(values, setting.shown(server, client))

    return run


def bulk_client(
    address: str, port: str, flows: int, seconds: float, congestion: str | None
) -> list[str]:
    """The command line of TCP throughput. iperf3 takes whole seconds."""
    argv = ["iperf3", "--json", "--client", address, "--port", port, "--parallel", str(flows)]
    argv += ["--time", f"{max(1, round(seconds))}"]
    return argv + (["--congestion", congestion] if congestion else [])


def received_of(said: str) -> dict[str, float]:
    """What the server received, as iperf3's client prints it. LabError: nothing."""
    received: dict[str, float] = json.loads(said)["end"]["sum_received"]
    if not received["bytes"]:
        raise LabError("TCP: nothing arrived")
    return received


def _cut(run: Callable[[Setting], Taken]) -> Callable[[Setting], Taken]:
    """The same with every segment made by the sender's TCP, as where no offload is."""

    def cut(setting: Setting) -> Taken:
        with _offloads_off(setting.ends.source), _offloads_off(setting.ends.target):
            return run(setting)

    return cut


@contextlib.contextmanager
def _offloads_off(end: End) -> Iterator[None]:
    device = "eth0"  # of a lab's pods and nodes
    end.run("ethtool", "-K", device, "tso", "off", "gso", "off")
    try:
        yield
    finally:
        end.run("ethtool", "-K", device, "tso", "on", "gso", "on")


def _asked(what: str, *more: str) -> Callable[[Setting], Taken]:
    """Requests, each with its response; `what` is talk's word for it."""

    def run(setting: Setting) -> Taken:
        port = str(new_port())
        server = setting.talk_server("serve", port, str(PORTS))
        client = setting.talk_client(what, setting.ends.address, port)
        client += [f"{setting.seconds:g}", *more]
        with setting.serving(int(port), server):
            before = cpu.read(setting.ends)
            count, *times = talk.parse(setting.run(client))
            used = cpu.read(setting.ends) - before
        values = {
            **asked_values(count, times, setting.seconds),
            **used.values(CPU_EACH, SOFTIRQ_EACH, 1e6 / count),
        }
        return Taken(values, setting.shown(server, client))

    return run


def asked_values(count: int, times: Sequence[int], seconds: float) -> dict[str, float]:
    """Of `count` exchanges in `seconds`; `times`: the three percentiles, ns."""
    percentiles = zip((P50, P99, _P999), times, strict=True)
    return {
        RATE.name: count / seconds / 1e3,
        **{figure.name: time / 1e3 for figure, time in percentiles},
    }


def _poured(size: int, rate: int = 0) -> Callable[[Setting], Taken]:
    """Datagrams from the client to the server, counted where they arrive at its interface. What its
    socket drops is no loss of the path: the server is too slow then.
    """

    def run(setting: Setting) -> Taken:
        port = str(new_port())
        target = setting.ends.target
        server = setting.talk_server("serve", port)
        client = setting.talk_client(*_pour(setting, setting.ends.address, port, size, rate))
        with setting.serving(int(port), server):
            arrived, dropped = target.arrived(), _dropped(target)
            before = cpu.read(setting.ends)
            (sent,) = talk.parse(setting.run(client))
            used = cpu.read(setting.ends) - before
            arrived, dropped = target.arrived() - arrived, _dropped(target) - dropped
        values = {
            **poured_values(sent, arrived, dropped, setting.seconds),
            **used.values(_CPU, _SOFTIRQ, 100 / setting.seconds),
        }
        return Taken(values, setting.shown(server, client))

    return run


def poured_values(sent: int, arrived: int, dropped: int, seconds: float) -> dict[str, float]:
    """Of `sent` datagrams in `seconds`. LabError: none arrived."""
    if not arrived:
        raise LabError("UDP: nothing arrived")
    return {
        RATE.name: arrived / seconds / 1e3,
        _LOST.name: max(0.0, 100 * (1 - arrived / sent)),
        _UNREAD.name: 100 * dropped / sent,
    }


def _dropped(end: End) -> int:
    return socket_drops(end.read("/proc/net/snmp"))


def _pour(setting: Setting, address: str, port: str, size: int, rate: int) -> list[str]:
    return ["pour", address, port, f"{setting.seconds:g}", str(size), str(rate)]


def _flooded(setting: Setting) -> Taken:
    """Request and response, while another pod beside each end is in a flood."""
    beside = setting.beside
    assert beside
    port = str(new_port())
    longer = replace(setting, seconds=2 * setting.seconds + _FLOOD_MORE)
    flood = _pour(longer, beside.address, port, _FLOOD_SIZE, 0)
    command = beside.source.inside([beside.source.program(setting.talk), *flood])
    server = [beside.target.program(setting.talk), "serve", port]
    with (
        beside.target.serving(int(port), server),
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as flooding,
    ):
        try:
            taken = _asked("tcp")(setting)
            if flooding.poll() is not None:
                raise LabError("the flood ended before the requests")
            return taken
        finally:
            flooding.kill()


WORKS = {
    work.name: work
    for work in (
        Work(plan.TCP1, _BULK, _bulk(1)),
        Work(plan.TCP8, _BULK, _bulk(8)),
        Work(plan.TCP1_CUT, _BULK, _cut(_bulk(1))),
        Work(plan.TCP8_CUT, _BULK, _cut(_bulk(8))),
        Work(plan.UDP64, _POURED, _poured(64)),
        Work(plan.UDP512, _POURED, _poured(512)),
        Work(plan.UDP1380, _POURED, _poured(1380)),
        Work(plan.TCP_RR, _ASKED, _asked("tcp")),
        # The rate shows what is lost: each costs a second, and no percentile may tell of so few.
        Work(plan.UDP_RR, (RATE, *_ASKED), _asked("udp")),
        Work(plan.CRR, _CONNECTED, _asked("connect", str(PORTS)), is_long=False),
        Work(
            plan.SLOW,
            _ASKED[:3],
            _asked("slow", str(_SLOW_FLOWS), f"{_SLOW_EVERY:g}"),
            is_long=False,
        ),
        Work(plan.FIXED, (_CPU, _SOFTIRQ, _LOST), _poured(_FIXED_SIZE, FIXED_RATE)),
        Work(plan.FLOODED, _ASKED[:3], _flooded),
        Work(plan.NGINX, apps.FIGURES, apps.nginx, tools=("nginx", "wrk")),
        Work(
            plan.REDIS,
            apps.FIGURES,
            apps.redis,
            is_long=False,  # it opens 50 connections, for few requests in a short run
            tools=("redis-server", "redis-benchmark"),
        ),
    )
}
