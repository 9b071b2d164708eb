# SPDX-License-Identifier: Apache-2.0
"""A veth that nothing stands on, for tests that put programs on hooks."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from chamber import Port, ip
from frames import ARP, Raw
from tables.case import sent

from vxlane.datapath import syscall
from vxlane.datapath.abi import Program
from vxlane.datapath.syscall import TcxHook

INDEX = 51
NOT_IP = bytes(sent(Raw(0, bytes(50)), ethertype=ARP))


@dataclass(frozen=True, slots=True)
class Device:
    """A veth that nothing stands on; frames go in at `near` (egress) or at `far` (ingress)."""

    near: Port
    far: Port

    def send(self, program: Program, count: int) -> None:
        """Put frames past the hook that the program belongs on, and wait until they are through."""
        egress = program in {Program.TO_POD, Program.TO_NIC}
        source, target = (self.near, self.far) if egress else (self.far, self.near)
        for _ in range(count):
            source.send(NOT_IP)
            target.receive(lambda frame: frame == NOT_IP)


def add_device(outside: int) -> None:
    """Make the veth, always under the same index."""
    ip(
        f"link add hook index {INDEX} type veth peer name hook-far netns {outside}",
        "link set hook up",
    )


def open_far() -> Port:
    """Bring the far end up."""
    ip("link set hook-far up")
    return Port("hook-far")


def tc(*arguments: str) -> str:
    """Run the tool tc."""
    return subprocess.run(["tc", *arguments], check=True, capture_output=True, text=True).stdout


def stands(hook: TcxHook) -> tuple[int, bool]:
    """TCX programs on the device's hook, and whether it has a clsact qdisc: the kernel's view."""
    return len(syscall.tcx_programs(INDEX, hook)), "clsact" in tc("qdisc", "show", "dev", "hook")
