# SPDX-License-Identifier: Apache-2.0
"""Scratch directories, and what killed processes leave."""

import os
import subprocess
import sys
import tempfile

import pytest

from vxlane.util import scratch

KILLED = """
import os, signal
from vxlane.util import scratch
with scratch.directory("kind") as made:
    (made / "file").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where they are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_goes_with_its_block(place):
    """With what is in it."""
    with scratch.directory("kind") as made:
        (made / "file").write_text("x")
        assert made.parent == place
    assert list(place.iterdir()) == []


def test_the_next_one_removes_what_a_killed_one_left(place):
    """And nothing else: those of living processes, of other kinds and of other names stay."""
    environment = {**os.environ, "TMPDIR": str(place)}
    subprocess.run([sys.executable, "-c", KILLED], check=False, env=environment)
    assert len(list(place.iterdir())) == 1
    others = ["vxlane-other-1-x", f"vxlane-kind-{os.getpid()}-x", "vxlane-kind-mine-x"]
    for name in others:
        (place / name).mkdir()
    with scratch.directory("kind"):
        pass
    assert {each.name for each in place.iterdir()} == set(others)
