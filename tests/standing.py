# SPDX-License-Identifier: Apache-2.0
"""Which of our programs stand on a namespace's devices, asked of the kernel.

Not of our pins, which are names that we gave, and not of `bpftool net show`, which knows TCX only
from Linux 6.6's on and shows nothing before.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.syscall import TcxHook
from vxlane.lab import namespaces
from vxlane.runtime import netns as namespace_files


def entered(netns: str) -> contextlib.AbstractContextManager[None]:
    """Put the calling thread into a namespace: what it opens there stays there."""
    return namespace_files.entered(namespaces.path(netns))


def programs(netns: str) -> set[tuple[Program, str]]:
    """(program, device), by either method."""
    return set(_by_tcx(netns)) | set(_by_clsact(netns))


def _by_tcx(netns: str) -> Iterator[tuple[Program, str]]:
    with entered(netns):
        found = [
            (number, device)
            for index, device in socket.if_nameindex()
            for hook in TcxHook
            for number in syscall.tcx_programs(index, hook)
        ]
    for number, device in found:
        show = ["bpftool", "--json", "prog", "show", "id", str(number)]
        done = subprocess.run(show, capture_output=True, check=False)
        if done.returncode == 0:  # else it was taken off meanwhile
            yield Program[json.loads(done.stdout)["name"].upper()], device


def _by_clsact(netns: str) -> Iterator[tuple[Program, str]]:
    for qdisc in json.loads(namespaces.run(netns, "tc", "-j", "qdisc", "show").stdout):
        if qdisc["kind"] == "clsact":
            device = qdisc["dev"]
            for side in ("ingress", "egress"):
                show = ["tc", "-j", "filter", "show", "dev", device, side]
                for entry in json.loads(namespaces.run(netns, *show).stdout):
                    name = entry.get("options", {}).get("bpf_name", "")
                    if name.startswith("vxlane/"):
                        yield Program[name.removeprefix("vxlane/").upper()], device
