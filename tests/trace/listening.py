# SPDX-License-Identifier: Apache-2.0
"""What tests listen to: the echoes of one pod to another node's."""

from __future__ import annotations

from labundertest import LabUnderTest

NODE, CLIENT, SERVER = "node1", "node1-pod1", "node2-pod1"


def ping(lab: LabUnderTest, source: str, target: str, count: int, identifier: int) -> None:
    """Echo requests, each answered."""
    argv = ["ping", "-n", "-c", str(count), "-i", "0.02", "-e", str(identifier)]
    lab.exec(source, *argv, lab.address(target))
