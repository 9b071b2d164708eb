# SPDX-License-Identifier: Apache-2.0
"""The file that `vxlane detach` goes by outlives what happens to files."""

from __future__ import annotations

import json

import pytest

from vxlane.errors import KernelError
from vxlane.host.undo import Undo, UndoFile

NOTED = Undo(sysctls={"net.ipv4.ip_forward": "0"}, network="10.42.0.0/16", device="flannel.1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"sysctls": {"net.ipv4.ip_fo',
        b"\x00\xff\xfe\x80" * 64,
        b"[]",
        b'{"sysctls": 5}',
        b'{"sysctls": {"net.ipv4.ip_forward": 0}}',
        b'{"device": ["flannel.1"]}',
        b'{"device": ' + b"[" * 100_000,
    ],
    ids=["empty", "cut", "binary", "list", "number", "value", "shape", "deep"],
)
def test_what_no_agent_wrote_is_put_aside(content, tmp_path, caplog):
    """An unreadable file does not stop an agent: it is kept for a person, who is told."""
    (tmp_path / "undo").write_bytes(content)
    file = UndoFile(tmp_path)
    assert (file.known, file.is_first) == (Undo(), True)
    assert (tmp_path / "undo.unreadable").read_bytes() == content
    assert "undo.unreadable" in caplog.text
    file.note(device="flannel.1")
    assert UndoFile(tmp_path).known == Undo(device="flannel.1")


def test_a_directory_in_its_place_is_put_aside(tmp_path):
    """A directory of that name does not stop an agent either."""
    (tmp_path / "undo" / "deep").mkdir(parents=True)
    UndoFile(tmp_path).note(device="flannel.1")
    assert (tmp_path / "undo.unreadable" / "deep").is_dir()
    assert UndoFile(tmp_path).known == Undo(device="flannel.1")


def test_keys_of_a_newer_version_come_through(tmp_path):
    """What a newer version noted is not known here, and still there for it afterwards."""
    (tmp_path / "undo").write_text('{"device": "flannel.1", "qdiscs": {"eth0": "fq"}}')
    file = UndoFile(tmp_path)
    assert file.known == Undo(device="flannel.1")
    file.note(network="10.42.0.0/16")
    document = json.loads((tmp_path / "undo").read_text())
    assert document["qdiscs"] == {"eth0": "fq"}
    assert document["network"] == "10.42.0.0/16"


def test_what_could_not_be_written_is_written_later(tmp_path):
    """Where the file can't be written the agent goes on, says so, and writes it when it can."""
    state = tmp_path / "state"
    file = UndoFile(state)
    file.note(network=NOTED.network, device=NOTED.device)
    file.note_sysctls(NOTED.sysctls)
    with pytest.raises(KernelError, match="undo: No such file or directory; make room"):
        file.save()
    state.mkdir()
    file.save()
    assert UndoFile(state).known == NOTED


def test_the_oldest_value_of_a_setting_is_kept(tmp_path):
    """The second agent on a node does not take the first one's values for the node's own."""
    UndoFile(tmp_path).note_sysctls({"net.ipv4.ip_forward": "0"})
    UndoFile(tmp_path).note_sysctls({"net.ipv4.ip_forward": "1"})
    assert UndoFile(tmp_path).known.sysctls == {"net.ipv4.ip_forward": "0"}
