# SPDX-License-Identifier: Apache-2.0
"""Compile, load and pin `device.c`: `python -I -m vxlane.bench.device_load`, a process of its own.

It imports bcc, which no long-lived process does. Reads a request from standard input.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import resources
from ipaddress import IPv4Address
from pathlib import Path

from bcc import BPF

from vxlane.datapath import syscall
from vxlane.datapath.source import kernel_headers
from vxlane.util.names import mac_octets


def main() -> None:
    """Request: {"pins": directory, "tunnel": ifindex, "pods": [{"address", "node", "ifindex",
    "mac", "gateway_mac"}]}.
    """
    request = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="vxlane-headers-") as scratch:
        headers = kernel_headers(Path(scratch))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        text = resources.files("vxlane.bench").joinpath("device.c").read_text()
        flags = [f"-DTUNNEL_IFINDEX={request['tunnel']}", *headers.flags]
        module = BPF(text=text, cflags=flags)
    pods = module["pods"]
    for pod in request["pods"]:
        leaf = pods.Leaf()
        leaf.node = _word(pod["node"])
        leaf.ifindex = pod["ifindex"]
        leaf.mac[:] = mac_octets(pod["mac"])
        leaf.gateway_mac[:] = mac_octets(pod["gateway_mac"])
        pods[pods.Key(_word(pod["address"]))] = leaf
    for name in ("from_pod", "from_tunnel"):
        function = module.load_func(name, BPF.SCHED_CLS)
        syscall.obj_pin(function.fd, Path(request["pins"]) / name)


def _word(address: str) -> int:
    """The address as it lies in memory."""
    return int.from_bytes(IPv4Address(address).packed, sys.byteorder)


if __name__ == "__main__":
    main()
