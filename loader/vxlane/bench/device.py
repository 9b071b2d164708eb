# SPDX-License-Identifier: Apache-2.0
"""The paths `device` and `encap` on a lab of stock nodes: programs in C, and their vxlan device.

Uses ip, and tc before Linux 6.6. What it makes is in the lab's namespaces, and its pins are in the
lab's directory: both go when the lab goes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from vxlane.datapath import syscall
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.syscall import TcxHook
from vxlane.errors import CompileError
from vxlane.lab import kernel_node, namespaces
from vxlane.lab.lab import Lab
from vxlane.lab.plan import LABS
from vxlane.lab.pods import BRIDGE
from vxlane.lab.underlay import NIC, ip
from vxlane.runtime import netns

PROGRAMS = {
    "device": ("from_pod", "from_tunnel"),
    "encap": ("from_pod", "from_nic", "from_tunnel"),
}
"""Of each path, in the file of its name."""
TUNNEL = "tunnel0"
_IFINDEX = 1000
"""The same on every node, so that the nodes share their programs."""
_PORT = 8473
"""flannel.1 has its own: the kernel gives a port to one kind of device."""
_TIMEOUT = 120.0


def install(lab: Lab, path: str) -> None:
    """Have all pods of `lab` use this path. CompileError: the programs do not load."""
    pins = pin_directory(lab)
    ensure_bpffs(pins)
    for node in lab.nodes:
        ip(
            node.name,
            f"link add {TUNNEL} index {_IFINDEX} mtu {kernel_node.MTU} type vxlan external"
            f" dstport {_PORT}",
        )
        ip(node.name, f"link set {TUNNEL} up")
    _load(
        {
            "source": f"{path}.c",
            "programs": PROGRAMS[path],
            "flags": [f"-DTUNNEL_IFINDEX={_IFINDEX}", f"-DTUNNEL_PORT={_PORT}"],
            "pins": str(pins),
            "pods": _pods(lab),
        }
    )
    for node in lab.nodes:
        _attach(node.name, TUNNEL, pins / "from_tunnel")
        if "from_nic" in PROGRAMS[path]:
            _attach(node.name, NIC, pins / "from_nic")
    for pod in lab.pods:
        _attach(pod.node, pod.veth, pins / "from_pod")


def pin_directory(lab: Lab) -> Path:
    """Where the programs are pinned."""
    return LABS / lab.name / "device"


def _pods(lab: Lab) -> list[dict[str, object]]:
    found = []
    for pod in lab.pods:
        links = {link["ifname"]: link for link in json.loads(ip(pod.node, "-j link show"))}
        found.append(
            {
                "address": str(pod.address),
                "node": str(lab.node(pod.node).address),
                "ifindex": links[pod.veth]["ifindex"],
                "mac": pod.mac,
                "gateway_mac": links[BRIDGE]["address"],
            }
        )
    return found


def _load(request: dict[str, object]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "vxlane.bench.device_load"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-5:])
        raise CompileError(f"the programs of that path did not load: {said}")


def _attach(namespace: str, device: str, program: Path) -> None:
    """As vxlane attaches its own: by TCX if the kernel has it. A clsact filter takes longer."""
    if not syscall.has_tcx():
        namespaces.run(namespace, "tc", "qdisc", "add", "dev", device, "clsact")
        bpf = ["bpf", "direct-action", "object-pinned", str(program)]
        namespaces.run(namespace, "tc", "filter", "add", "dev", device, "ingress", *bpf)
        return
    descriptor = syscall.obj_get(program)
    try:
        with netns.entered(netns.path(namespace)):
            ifindex = socket.if_nametoindex(device)
            link = syscall.link_create(descriptor, ifindex, TcxHook.INGRESS)
    finally:
        os.close(descriptor)
    try:
        syscall.obj_pin(link, program.with_name(f"link-{namespace}-{device}"))
    finally:
        os.close(link)
