# SPDX-License-Identifier: Apache-2.0
"""A virtual machine: one kernel of an image, one job, and what it said.

The processor is emulated, so it is slow, and its clock counts instructions: to the guest it is an
ordinary machine, whose waits of five seconds are as long as on a real one. It ends with this
process, by whatever way that ends.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import initramfs
from image import HERE, Image, MatrixError, checkout

SECONDS = 1500.0
Machine = subprocess.Popen[bytes]
_MARK = re.compile(r"^@@ (\w+) (.*?)\r?$", re.MULTILINE)
_LOST = ("Kernel panic", "@@ status no disk")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a machine said until it ended."""

    text: str
    seconds: float

    @property
    def said(self) -> Mapping[str, str]:
        """Its versions, and `status`, by the lines that guest.sh writes."""
        return dict(_MARK.findall(self.text))


def start_archive(image: Image, release: str, job: str) -> bytes:
    """The archive with which a kernel of the image boots and does the job, a shell script."""
    names = initramfs.DISK_MODULES + initramfs.NET_MODULES
    found = initramfs.modules(image.enter(), image.root, release, names)
    scripts = {"init": HERE / "init.sh", "guest.sh": HERE / "guest.sh"}
    files = {name: file.read_bytes() for name, file in scripts.items()}
    files |= {"bin/busybox": initramfs.BUSYBOX.read_bytes(), "job.sh": job.encode()}
    return initramfs.archive(files | found | {"checkout.tar": checkout()})


def boot(image: Image, release: str, job: str, folder: Path, *more: str) -> Machine:
    """Start a machine; `console` in the folder is what it says. `more`: arguments of qemu."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "initramfs"
    archive.write_bytes(start_archive(image, release, job))
    # Ends with its parent, so that a killed run leaves no machine behind.
    command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg"]
    command += ["-cpu", "max", "-m", "2G", "-nodefaults", "-no-reboot"]
    command += ["-display", "none", "-serial", f"file:{folder / 'console'}"]
    command += ["-kernel", str(image.kernel(release)), "-initrd", str(archive)]
    command += ["-append", "console=ttyS0 panic=-1 quiet mitigations=off rdinit=/init"]
    command += ["-drive", f"if=virtio,format=raw,snapshot=on,file={image.disk}", *more]
    with (folder / "qemu.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


COUNTING = ("-icount", "shift=1")
"""Time as the guest has it: 2 ns an instruction. It hangs at the start of a second processor."""


def run(image: Image, release: str, job: str, folder: Path) -> Outcome:
    """Boot, and wait for the end of the job."""
    began = time.monotonic()
    machine = boot(image, release, job, folder, *COUNTING)
    try:
        machine.wait(SECONDS)
    except subprocess.TimeoutExpired:
        pass  # What it said tells how far it came.
    finally:
        machine.kill()
        machine.wait()
    outcome = Outcome(read(folder), time.monotonic() - began)
    if any(words in outcome.text for words in _LOST) or "kernel" not in outcome.said:
        msg = f"{release} did not boot, see {folder / 'console'} and {folder / 'qemu.log'}"
        raise MatrixError(msg)
    return outcome


def read(folder: Path) -> str:
    """What a machine has said so far."""
    console = folder / "console"
    return console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
