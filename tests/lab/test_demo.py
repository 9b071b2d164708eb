# SPDX-License-Identifier: Apache-2.0
"""The demo, from the command line."""

import json
import os
import signal
import subprocess
import time

import pytest

from vxlane.lab import lab as labs
from vxlane.lab import namespaces
from vxlane.lab.agents import program
from vxlane.lab.waiting import wait_for

NAME = f"vxtest-{os.getpid()}-demo"
DEMO = [program("vxlane"), "lab", "demo", "--name", NAME, "--json"]


@pytest.fixture(autouse=True)
def _leave_nothing(_machine):
    yield
    labs.down(NAME)


def test_demo_shows_both_ways():
    """One short round: exit status 0, every measure of every pair, nearly all TCP bypassed."""
    command = [*DEMO, "--rounds", "1", "--seconds", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["failures"] == []
    names = [pair["pair"] for pair in shown["pairs"]]
    assert names == ["of two nodes", "of one node", "to a kernel-only node", "by a Service"]
    for pair in shown["pairs"]:
        assert pair["tcp_packets"]["bypass"]["share"] >= 0.95
        assert pair["tcp_packets"]["kernel"]["bypassed"] == 0
        # Nothing answers a Service's ping.
        assert len(pair["measures"]) == (4 if pair["pair"] == "by a Service" else 5)
        for measure in pair["measures"]:
            assert measure["kernel"] > 0
            assert measure["bypass"] > 0
    assert not [name for name in namespaces.existing() if name.startswith(NAME)]


def test_interrupted_demo_leaves_nothing():
    """Ctrl-C in the middle of a measurement: one line, status 1, no lab left."""
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: demo.stderr.readline().startswith("demo: round 1"), "the first round")
    time.sleep(1)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=20)
    assert demo.returncode == 1
    assert "Traceback" not in errors
    assert not [name for name in namespaces.existing() if name.startswith(NAME)]
