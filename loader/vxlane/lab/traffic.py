# SPDX-License-Identifier: Apache-2.0
"""Real traffic between two pods, measured: ping, iperf3, sockperf, short connections.

A server is started for each measurement and killed after it. A measurement without any transfer is
a LabError. Imports errors, namespaces and waiting.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxlane.errors import LabError
from vxlane.lab import connections as connections_program
from vxlane.lab import namespaces
from vxlane.lab.waiting import wait_for

_IPERF_PORT, _SOCKPERF_PORT = 5201, 11111
"""Different ones: sockperf does not start on a port with connections in TIME_WAIT."""

_CONNECTION_PORTS = itertools.count(20000)
"""A new one each time: what is in TIME_WAIT makes it slow to find a free port."""

MORTAL = ("setpriv", "--pdeathsig", "KILL", "--")
"""A command behind this dies with this process, also by kill -9 (PR_SET_PDEATHSIG, prctl(2)).
Otherwise it would run on in a pod, which could not be removed."""

_WAITS = {"0A", "07"}
"""States of a socket that waits for a client, in /proc/net/tcp and udp: LISTEN, and CLOSE of a
bound one (include/net/tcp_states.h)."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Two pods that talk: two namespaces, and the address of the second."""

    source: str
    target: str
    address: str


def ping(ends: Ends, *, count: int = 50) -> float:
    """Median round trip of `count` echoes, microseconds. LabError: one got lost."""
    argv = ["ping", "-n", "-c", str(count), "-i", "0.002", "-W", "2", ends.address]
    said = namespaces.run(ends.source, *argv, check=False).stdout
    times = sorted(float(found) * 1000 for found in re.findall(r"time=([\d.]+) ms", said))
    if len(times) != count:
        raise LabError(f"ping {ends.source} -> {ends.target}: {len(times)} of {count} came back")
    return times[count // 2]


def tcp(ends: Ends, *, seconds: float) -> float:
    """Throughput of one TCP flow, bit/s."""
    received = _iperf(ends, seconds)["sum_received"]
    if not received["bytes"]:
        raise LabError(f"TCP {ends.source} -> {ends.target}: nothing arrived")
    return float(received["bits_per_second"])


def udp(ends: Ends, *, seconds: float, size: int = 64) -> float:
    """Datagrams of `size` bytes that reach the pod each second, from one sending thread."""
    port = ["-p", str(_SOCKPERF_PORT)]
    with serving(ends.target, _SOCKPERF_PORT, "sockperf", "server", *port) as server:
        before = arrived(server)
        # Counted at the pod's interface: sockperf's server reads fewer than arrive.
        argv = [
            "sockperf",
            "throughput",
            "-i",
            ends.address,
            *port,
            "-m",
            str(size),
            "-t",
            _whole(seconds),
        ]
        namespaces.run(ends.source, *argv)
        came = arrived(server) - before
    if not came:
        raise LabError(f"UDP {ends.source} -> {ends.target}: nothing arrived")
    return came / float(_whole(seconds))


def latency(ends: Ends, *, seconds: float) -> float:
    """One way of a TCP ping-pong of 64 bytes, median, microseconds."""
    port = ["-p", str(_SOCKPERF_PORT), "--tcp"]
    with serving(ends.target, _SOCKPERF_PORT, "sockperf", "server", *port):
        argv = ["sockperf", "ping-pong", "-i", ends.address, *port, "-m", "64"]
        argv += ["-t", _whole(seconds)]
        said = namespaces.run(ends.source, *argv).stdout
    found = re.search(r"percentile 50\.000 = +([\d.]+)", said)
    if not found:
        raise LabError(f"sockperf {ends.source} -> {ends.target}: {said.strip()[-200:]}")
    return float(found[1])


def connections(ends: Ends, *, seconds: float) -> float:
    """Short connections a second, one after the other: connect, request, response, close."""
    port = str(next(_CONNECTION_PORTS))
    program = [sys.executable, "-I", str(connections_program.__file__)]
    with serving(ends.target, int(port), *program, "serve", port):
        argv = [*program, "call", ends.address, port, str(seconds)]
        done = namespaces.run(ends.source, *argv, check=False, timeout=seconds + 30)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise LabError(f"short connections {ends.source} -> {ends.target}: {said}")
    return float(done.stdout)


def arrived(process: subprocess.Popen[bytes]) -> int:
    """Packets that have come into the namespace of `process` from outside."""
    return arrived_in(Path(f"/proc/{process.pid}/net/dev").read_text(encoding="ascii"))


def arrived_in(text: str) -> int:
    """The same, from the text of /proc/net/dev (proc(5))."""
    devices = (row.split(":") for row in text.splitlines()[2:])
    return sum(int(counts.split()[1]) for name, counts in devices if name.strip() != "lo")


def _iperf(ends: Ends, seconds: float) -> dict[str, Any]:
    """The `end` of iperf3's report."""
    port = str(_IPERF_PORT)
    with serving(ends.target, _IPERF_PORT, "iperf3", "--server", "--port", port):
        argv = ["iperf3", "--json", "--client", ends.address, "--port", port]
        argv += ["--time", _whole(seconds)]
        done = namespaces.run(ends.source, *argv, check=False, timeout=seconds + 30)
    report = json.loads(done.stdout or "{}")
    if "end" not in report or "error" in report:
        said = report.get("error") or done.stderr.strip() or f"status {done.returncode}"
        raise LabError(f"iperf3 {ends.source} -> {ends.target}: {said}")
    end: dict[str, Any] = report["end"]
    return end


def _whole(seconds: float) -> str:
    """Whole seconds, as both tools need them."""
    return str(max(1, round(seconds)))


@contextlib.contextmanager
def serving(namespace: str, port: int, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in `namespace` during the block, which begins when the server listens."""
    command = namespaces.inside(namespace, [*MORTAL, *argv])
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: _listens(server, port), f"{argv[0]} in {namespace}")
            yield server
        finally:
            server.kill()


def _listens(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether a socket waits for clients on `port` in the server's namespace."""
    if server.poll() is not None:
        raise LabError(
            f"a server ended with status {server.returncode}; is its port taken, or the program"
            " not installed? scripts/setup installs it"
        )
    texts = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        try:
            texts.append(Path(f"/proc/{server.pid}/net/{table}").read_text(encoding="ascii"))
        except OSError:
            return False  # it has just ended, which the next look tells
    return is_listening("".join(texts), port)


def is_listening(text: str, port: int) -> bool:
    """Whether a socket waits for clients on `port`, by the texts of /proc/net/tcp and its like."""
    for row in text.splitlines():
        if row.lstrip().startswith("sl"):
            continue
        _, local, _, state, *_ = row.split()
        if local.endswith(f":{port:04X}") and state in _WAITS:
            return True
    return False
