# SPDX-License-Identifier: Apache-2.0
"""What tests listen to: the echoes of one pod to another node's. And how they read a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

from labundertest import LabUnderTest

NODE, CLIENT, SERVER = "node1", "node1-pod1", "node2-pod1"


def ping(lab: LabUnderTest, source: str, target: str, count: int, identifier: int) -> None:
    """Echo requests, each answered."""
    argv = ["ping", "-n", "-c", str(count), "-i", "0.02", "-e", str(identifier)]
    lab.exec(source, *argv, lab.address(target))


def tshark(file: Path, *fields: str) -> list[tuple[str, ...]]:
    """The fields of each packet; names come from the file alone."""
    argv = ["tshark", "-r", str(file), "-N", "n", "-d", "udp.port==8472,vxlan", "-T", "fields"]
    argv += [word for field in fields for word in ("-e", field)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return [tuple(row.split("\t")) for row in done.stdout.splitlines()]
