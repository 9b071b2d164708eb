# SPDX-License-Identifier: Apache-2.0
"""Notes of probe pods that earlier runs left."""

import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

from vxlane.connectivity.pod import Network, ProbePods, why_not_added
from vxlane.errors import ToolError
from vxlane.runtime import netns
from vxlane.show import node

PLUGIN = """\
#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID" >>"$(dirname "$0")/calls"
"""


@pytest.fixture
def plugins(tmp_path):
    """A directory with the plugin `maker`, which writes its calls down."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "maker").write_text(PLUGIN, encoding="utf-8")
    (directory / "maker").chmod(0o755)
    return directory


@pytest.fixture
def note(tmp_path, plugins):
    """The note of a run that was killed."""
    conflist = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "maker"}]}
    file = tmp_path / "probes" / "vxlane-test-0a1b2c3d.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"conflist": conflist, "plugins": str(plugins)}), encoding="utf-8")
    return file


def test_a_killed_runs_pod_is_deleted_by_its_note(note, plugins):
    """The plugins that made it are told to delete it, and the note goes."""
    assert ProbePods(note.parent).remove_leftovers() == []
    assert (plugins / "calls").read_text() == "DEL vxlane-test-0a1b2c3d\n"
    assert not note.parent.exists()


def test_a_living_runs_pod_is_left_alone(note, plugins):
    """A note that is locked stays, and so does its pod."""
    with note.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ProbePods(note.parent).remove_leftovers() == []
    assert note.exists()
    assert not (plugins / "calls").exists()


def test_what_can_not_be_deleted_is_said_each_time(note, plugins):
    """Where a plugin is gone the note stays for the next run, and a sentence names the pod."""
    (plugins / "maker").unlink()
    for _ in range(2):
        (said,) = ProbePods(note.parent).remove_leftovers()
        assert said.startswith(
            "the probe pod vxlane-test-0a1b2c3d of a killed run can't be removed"
        )
        assert note.exists()


def test_an_empty_note_has_no_pod(note):
    """A run that was killed before it wrote its note had made nothing."""
    note.write_bytes(b"")
    assert ProbePods(note.parent).remove_leftovers() == []
    assert not note.exists()


def test_an_error_leaves_no_note(tmp_path, plugins, monkeypatch):
    """A pod that a plugin does not make is deleted, and its note goes with it."""
    monkeypatch.setattr(netns, "make", Path.touch)
    conflist = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "maker"}]}
    pods = ProbePods(tmp_path / "probes")
    with pytest.raises(ToolError), pods.made(Network(conflist, plugins)):
        pass
    assert [line.split()[0] for line in (plugins / "calls").read_text().splitlines()][-1] == "DEL"
    assert not (tmp_path / "probes").exists()


def test_an_agent_that_hangs_was_not_told_of_the_pod(tmp_path, monkeypatch):
    """It holds its directory and listens, so the network may well call the plugin."""
    monkeypatch.setattr(node, "_ANSWER_SECONDS", 0.1)
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen(1)
        assert "did not answer within 0.1 s" in why_not_added(tmp_path)
    os.close(directory)
    assert "start it: vxlane agent" in why_not_added(tmp_path)


def test_a_pod_of_the_kernel_path_has_every_plugin():
    """The plugin of vxlane finds no agent then, in either role, and does not insist on one."""
    listed = [{"type": "flannel"}, {"type": "portmap"}, {"type": "vxlane", "required": True}]
    made = Network({"name": "cbr0", "plugins": listed}, "bin").without_agent()
    no_agent = {"stateDir": "/nonexistent", "required": False}
    assert made.conflist["plugins"] == [
        {"type": "flannel", **no_agent},
        {"type": "portmap"},
        {"type": "vxlane", **no_agent},
    ]
    assert made.conflist["name"] == "cbr0"
    assert listed[2]["required"]
