# SPDX-License-Identifier: Apache-2.0
"""Compile, load and pin `device.c` or `encap.c`: a process of its own (`python -I -m`).

It imports bcc, which no long-lived process does. Reads a request from standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from importlib import resources
from pathlib import Path

from bcc import BPF

from vxlane.datapath import compiler, syscall
from vxlane.datapath.source import kernel_headers
from vxlane.util import scratch
from vxlane.util.names import be32, mac_octets


def main() -> None:
    """Request: {"source": file, "programs": names, "flags": the compiler's, "pins": directory,
    "pods": [{"address", "node", "ifindex", "mac", "gateway_mac"}]}.
    """
    request = json.load(sys.stdin)
    with contextlib.ExitStack() as stack:
        headers = kernel_headers(stack.enter_context(scratch.directory(compiler.SCRATCH)))
        if headers.path:
            os.environ["BCC_KERNEL_SOURCE"] = str(headers.path)
        files = stack.enter_context(resources.as_file(resources.files("vxlane.bench")))
        text = (files / request["source"]).read_text()
        module = BPF(text=text, cflags=[f"-I{files}", *request["flags"], *headers.flags])
    pods = module["pods"]
    for pod in request["pods"]:
        leaf = pods.Leaf()
        leaf.node = be32(pod["node"])
        leaf.ifindex = pod["ifindex"]
        leaf.mac[:] = mac_octets(pod["mac"])
        leaf.gateway_mac[:] = mac_octets(pod["gateway_mac"])
        pods[pods.Key(be32(pod["address"]))] = leaf
    for name in request["programs"]:
        function = module.load_func(name, BPF.SCHED_CLS)
        syscall.obj_pin(function.fd, Path(request["pins"]) / name)


if __name__ == "__main__":
    main()
