# SPDX-License-Identifier: Apache-2.0
"""`vxlane profile` of a lab's node, for as long as a block runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal

from vxlane.lab.agents import program


@contextlib.contextmanager
def begun(lab, node, *options):
    """The process of a profile that has begun."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(node).directory)}
    command = [program("vxlane"), "profile", "--seconds", "60", "--json", "-", *options]
    with lab.spawn(node, *command, stdout=-1, stderr=-1, env=env) as process:
        assert process.stderr.readline() == "profiling for 60 s; Ctrl-C ends it sooner\n"
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
