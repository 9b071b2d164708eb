# SPDX-License-Identifier: Apache-2.0
"""`vxlane profile` of a lab's node, for as long as a block runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for


def descriptors(pid):
    """What a process has open, as /proc names it."""
    with contextlib.suppress(FileNotFoundError):
        return {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    return set()


@contextlib.contextmanager
def begun(lab, node, *options):
    """The process of a profile that has begun."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(node).directory)}
    command = [program("vxlane"), "profile", "--seconds", "60", "--json", "-", *options]
    with lab.spawn(node, *command, stdout=-1, env=env) as process:
        # It is the last that the profile begins.
        wait_for(
            lambda: "anon_inode:bpf-stats" in descriptors(process.pid), "a profile", seconds=20
        )
        yield process


@contextlib.contextmanager
def profiling(lab, node, *options):
    """Profile a node during the block; its document is filled in at the end."""
    document = {}
    with begun(lab, node, *options) as process:
        yield document
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    document.update(json.loads(said))
