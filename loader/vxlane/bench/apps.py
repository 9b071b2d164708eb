# SPDX-License-Identifier: Apache-2.0
"""Two servers that people run: nginx asked by wrk, and redis asked by redis-benchmark.

Both are asked on connections that stay open. Neither is installed by scripts/setup.
"""

from __future__ import annotations

import csv
import io
import re

from vxlane.bench import cpu
from vxlane.bench.cpu import Spent
from vxlane.bench.model import CPU_EACH, P50, P99, RATE, SOFTIRQ_EACH, Taken
from vxlane.bench.setting import Setting, new_port
from vxlane.errors import LabError, ToolError
from vxlane.util import scratch

FIGURES = (RATE, P50, P99, CPU_EACH, SOFTIRQ_EACH)

_NGINX = """\
daemon off; master_process off; pid {directory}/pid; error_log stderr crit;
events {{ }}
http {{
 access_log off; keepalive_requests 1000000000;
 client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
 fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
 scgi_temp_path {directory}/scgi;
 server {{ listen {port}; location / {{ return 200 "{body}"; }} }}
}}
"""
_BODY = "x" * 100
_CONNECTIONS = 16
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
_REDIS_REQUESTS = 30_000
"""For each second: redis-benchmark counts requests, and not time."""


def nginx(setting: Setting) -> Taken:
    """GET of 100 bytes on 16 connections, by one thread of wrk."""
    port = new_port()
    with scratch.directory("bench") as directory:
        config = directory / "nginx.conf"
        text = _NGINX.format(directory=directory, port=port, body=_BODY)
        config.write_text(text, encoding="ascii")
        server = setting.server("nginx", "-e", "stderr", "-p", str(directory), "-c", str(config))
        client = setting.client("wrk", "--latency", "-t1", f"-c{_CONNECTIONS}")
        client += [f"-d{max(1, round(setting.seconds))}s", f"http://{setting.ends.address}:{port}/"]
        with setting.serving(port, server):
            before = cpu.read(setting.ends)
            said = setting.run(client)
            used = cpu.read(setting.ends) - before
    return Taken(_values(*wrk(said), used), setting.shown(server, client))


def wrk(said: str) -> tuple[float, float, float, int]:
    """Requests a second, median and 99th percentile in us, and the count, as wrk prints them."""
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    count = re.search(r"(\d+) requests in", said)
    times = dict(re.findall(r"^ +(50|99)% +([\d.]+(?:us|ms|s))$", said, re.MULTILINE))
    if not rate or not count or len(times) != 2 or "Socket errors" in said or "Non-2xx" in said:
        raise ToolError(f"wrk said: {said.strip()[-300:]}")
    return float(rate[1]), _time(times["50"]), _time(times["99"]), int(count[1])


def _time(word: str) -> float:
    """`1.50ms` in us."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", word).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def redis(setting: Setting) -> Taken:
    """GET of a missing key on 50 connections."""
    port = new_port()
    count = round(_REDIS_REQUESTS * setting.seconds)
    with scratch.directory("bench") as directory:
        server = setting.server("redis-server", "--port", str(port), "--save", "")
        server += ["--dir", str(directory), "--protected-mode", "no", "--daemonize", "no"]
        client = setting.client("redis-benchmark", "-h", setting.ends.address, "-p", str(port))
        client += ["-t", "get", "-n", str(count), "--csv"]
        with setting.serving(port, server):
            before = cpu.read(setting.ends)
            said = setting.run(client)
            used = cpu.read(setting.ends) - before
    return Taken(_values(*redis_benchmark(said), count, used), setting.shown(server, client))


def redis_benchmark(said: str) -> tuple[float, float, float]:
    """Requests a second, median and 99th percentile in us, of its table of one line."""
    lines = [line for line in said.splitlines() if line.startswith('"')]
    row = next(csv.DictReader(io.StringIO("\n".join(lines))), None)
    if not row or "rps" not in row:
        raise ToolError(f"redis-benchmark said: {said.strip()[-300:]}")
    return (
        float(row["rps"]),
        float(row["p50_latency_ms"]) * 1e3,
        float(row["p99_latency_ms"]) * 1e3,
    )


def _values(rate: float, p50: float, p99: float, count: int, used: Spent) -> dict[str, float]:
    if not count:
        raise LabError("not one request was answered")
    return {
        RATE.name: rate / 1e3,
        P50.name: p50,
        P99.name: p99,
        **used.values(CPU_EACH, SOFTIRQ_EACH, 1e6 / count),
    }
