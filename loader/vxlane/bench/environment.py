# SPDX-License-Identifier: Apache-2.0
"""What a run's figures depend on beside the paths: machine, kernel, versions, settings."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from vxlane.bench import talk
from vxlane.errors import OptionError
from vxlane.lab import namespaces
from vxlane.lab.underlay import NIC

CONGESTION_CONTROL = "/proc/sys/net/ipv4/tcp_congestion_control"
"""The one of new connections: bbr sends by a clock of its own, cubic and reno as fast as the path
and the receiver take it."""
AVAILABLE = "/proc/sys/net/ipv4/tcp_available_congestion_control"
_MODEL = r"^model name\s*: (.*)$"
_OFFLOADS = (
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-udp_tnl-segmentation",
)


def describe(cpus: Sequence[int], congestion: str | None = None) -> dict[str, str]:
    """Name -> what it is here; `congestion`: what TCP throughput is measured by instead."""
    load = os.getloadavg()
    return {
        "kernel": f"{platform.release()} {platform.machine()}",
        "system": _line("/etc/os-release", r'^PRETTY_NAME="?(.*?)"?$'),
        "CPU": f"{os.cpu_count()} x {_line('/proc/cpuinfo', _MODEL)}",
        "ends run on CPUs": " and ".join(map(str, cpus)),
        "load when it began": f"{load[0]:.2f}",
        "TCP congestion control": _line(CONGESTION_CONTROL, "(.*)")
        + (f"; of TCP throughput {congestion}, as asked for" if congestion else ""),
        "idle CPUs": _idle(),
        "clocksource": _line(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource", "(.*)"
        ),
        "vxlane": version("vxlane"),
        "iperf3": _first_line("iperf3", "--version"),
        "compiler of talk": _first_line(talk.find_compiler(), "--version"),
    }


def check_congestion(name: str) -> None:
    """OptionError: this machine's kernel has no such congestion control."""
    has = Path(AVAILABLE).read_text(encoding="ascii").split()
    if name not in has:
        raise OptionError(
            f'this kernel has no congestion control "{name}"; it has {", ".join(has)}. Load the'
            f" module of another one: modprobe tcp_{name}"
        )


def wire(namespace: str) -> str:
    """The offloads of a lab node's NIC that are on."""
    said = namespaces.run(namespace, "ethtool", "-k", NIC, check=False).stdout
    on = [name for name in _OFFLOADS if re.search(rf"^{name}: on", said, re.MULTILINE)]
    return f"a veth pair and a bridge on this machine; on: {', '.join(on) or 'no offload'}"


def _idle() -> str:
    """Who decides how an idle CPU sleeps. haltpoll, a virtual machine's, polls before it halts."""
    governor = _line("/sys/devices/system/cpu/cpuidle/current_governor", "(.*)")
    polled = _line("/sys/module/haltpoll/parameters/guest_halt_poll_ns", "(.*)")
    told = f"; polls for {polled} ns at most" if governor == "haltpoll" else ""
    return f"governor {governor}{told}"


def _line(file: str, pattern: str) -> str:
    """The first match in a file; "unknown" where there is none."""
    try:
        found = re.search(pattern, Path(file).read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return "unknown"
    return found[1] if found else "unknown"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout.splitlines() or ["unknown"])[0]
