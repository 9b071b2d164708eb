# SPDX-License-Identifier: Apache-2.0
"""Two virtual machines with a virtio wire: vxlane in the root namespace of one, flannel's kernel
path in that of the other. What each does is in wireend.py.
"""

from __future__ import annotations

import time
from pathlib import Path

import machine
from image import Image
from machine import Outcome

_MAC = "52:54:00:00:00:0{}"
_NEEDED = ("ping", "outward", "inward")


def run(image: Image, folder: Path) -> Outcome:
    """What the machine with vxlane said; the other one serves until then."""
    # A Unix socket's path is short, and those of a checkout may be long.
    wire = Path(f"/tmp/vxlane-wire-{image.suite.name}")
    wire.unlink(missing_ok=True)
    began = time.monotonic()
    machines = []
    try:
        for number, side in ((2, "server=on"), (1, "server=off")):
            machines.append(_boot(image, number, side, wire, folder))
            while number == 2 and not wire.exists():
                time.sleep(0.1)
        machines[1].wait(machine.SECONDS)
    finally:
        for one in machines:
            one.kill()
            one.wait()
        wire.unlink(missing_ok=True)
    return Outcome(machine.read(folder / "1"), time.monotonic() - began)


def _boot(image: Image, number: int, side: str, wire: Path, folder: Path) -> machine.Machine:
    job = f".venv/bin/python tests/kernels/wireend.py {number}"
    device = f"virtio-net-pci,netdev=wire,mac={_MAC.format(number)}"
    network = f"stream,id=wire,{side},addr.type=unix,addr.path={wire}"
    console = folder / str(number) / "console"
    console.unlink(missing_ok=True)
    more = ("-netdev", network, "-device", device)
    return machine.boot(image, image.releases[0], job, console.parent, *more)


def problems(outcome: Outcome) -> tuple[str, ...]:
    """What was not shown."""
    return tuple(f"two machines: no {name}" for name in _NEEDED if name not in outcome.said)


def words(outcome: Outcome) -> str:
    """What was shown."""
    return "; ".join(f"{name} {outcome.said.get(name, 'failed')}" for name in _NEEDED)
