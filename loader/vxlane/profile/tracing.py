# SPDX-License-Identifier: Apache-2.0
"""Follow packets, in a process of its own: `python -I -m vxlane.profile.tracing`.

It compiles packets.c, attaches it, and ends when its standard input does. All it has attached are
descriptors of its own, so nothing stays however it ends; and its standard input ends when its
parent does, however that ends.

It imports bcc, which no long-lived process does. It is isolated (-I) like vxlane.datapath.compile.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import resources
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bcc import BPF

from vxlane.datapath.source import WARNINGS, kernel_headers
from vxlane.profile.legs import SLOTS, TRACEPOINTS, Leg
from vxlane.profile.legs import Path as Way
from vxlane.util.names import be32

_OLDER = {"tcp_retransmit_skb": "at_tcp_retransmit_skb_without_error"}
"""What is attached where a tracepoint has fewer arguments."""


def main() -> None:
    """Request, one line: {"defines": {name: integer}, "devices": {ifindex: place},
    "pods": [address], "scratch": directory}.

    Answers, a line each: {"missing": [tracepoint]} once it is attached, and what was seen once
    standard input has ended: {"legs": [...], "retransmits": [...]}.
    """
    request = json.loads(sys.stdin.readline())
    module = _compiled(request["defines"], Path(request["scratch"]))
    _fill(module["devices"], {int(key): value for key, value in request["devices"].items()})
    _fill(module["pods"], {be32(address): 1 for address in request["pods"]})
    _say({"missing": [name for name in TRACEPOINTS if not _attach(module, name)]})
    sys.stdin.read()
    for name in list(module.raw_tracepoint_fds):
        module.detach_raw_tracepoint(name)
    _say({"legs": _legs(module), "retransmits": _retransmits(module)})


def program_text() -> str:
    """What is compiled; errors name its file."""
    text = resources.files("vxlane").joinpath("profile").joinpath("packets.c").read_text()
    return f'#line 1 "profile/packets.c"\n{text}'


def _compiled(defines: dict[str, int], scratch: Path) -> BPF:
    flags = [f"-D{name}={value}" for name, value in defines.items()]
    headers = kernel_headers(scratch)
    if headers.path:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
    return BPF(text=program_text(), cflags=[*flags, *WARNINGS, *headers.flags])


def _attach(module: BPF, tracepoint: str) -> bool:
    """Whether the kernel has this tracepoint."""
    functions = f"at_{tracepoint}", _OLDER.get(tracepoint)
    return any(_attach_function(module, tracepoint, name) for name in functions if name)


def _attach_function(module: BPF, tracepoint: str, function: str) -> bool:
    """Whether it is attached. bcc raises a bare Exception where the kernel lacks the tracepoint, or
    one of the arguments that the function reads (bpf_probe_register(), kernel/trace/bpf_trace.c).
    """
    module.load_func(function, BPF.RAW_TRACEPOINT)
    try:
        module.attach_raw_tracepoint(tp=tracepoint, fn_name=function)
    except Exception:  # noqa: BLE001 (bcc's own)
        return False
    return True


def _fill(table: Any, entries: dict[int, int]) -> None:
    for key, value in entries.items():
        table[table.Key(key)] = table.Leaf(value)


def _legs(module: BPF) -> list[dict[str, Any]]:
    """Every leg by either way: what was counted, summed over the CPUs."""
    latencies, sizes = (_summed(module[name]) for name in ("latencies", "sizes"))
    found = []
    for leg in Leg:
        for way in Way:
            row = leg * len(Way) + way
            cpus = module["sums"][row]
            here = slice(row * SLOTS, (row + 1) * SLOTS)
            found.append(
                {
                    "leg": leg.label,
                    "path": way.label,
                    "packets": sum(cpu.packets for cpu in cpus),
                    "bytes": sum(cpu.bytes for cpu in cpus),
                    "segments": sum(cpu.segments for cpu in cpus),
                    "longest": max(cpu.longest for cpu in cpus),
                    "latencies": latencies[here],
                    "sizes": sizes[here],
                }
            )
    return found


def _summed(table: Any) -> list[int]:
    return [sum(values) for _, values in sorted((key.value, cpus) for key, cpus in table.items())]


def _retransmits(module: BPF) -> list[dict[str, Any]]:
    """Of sockets behind this node's veths. Addresses repeat: a machine may have several nodes."""
    behind = {key.value for key in module["namespaces"]}
    return [
        {
            "remote": str(IPv4Address(key.remote.to_bytes(4, sys.byteorder))),
            "is_syn": bool(key.is_syn),
            "count": count.value,
        }
        for key, count in module["retransmits"].items()
        if key.netns in behind
    ]


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
