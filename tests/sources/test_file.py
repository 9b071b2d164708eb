# SPDX-License-Identifier: Apache-2.0
"""What the file of nodes yields: good entries, reports of bad ones, and never less than before."""

from __future__ import annotations

import json
import select
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from vxlane.errors import ConfigError
from vxlane.sources.file import FileSource
from vxlane.sources.model import Problem, derived_mac
from vxlane.sources.snapshot import NOTHING_READ
from vxlane.util.inotify import DirectoryWatch

GOOD = """
network: 10.42.0.0/16
nodes:
  - {name: node1, address: 192.168.77.1, podCIDR: 10.42.1.0/24}
  - {name: node2, address: 192.168.77.2, podCIDR: 10.42.2.0/24, vtepMAC: 0e:29:66:26:fa:6d}
  - {name: node3, address: 192.168.77.3, podCIDR: 10.42.3.0/24, vtepMAC: 10:20:30:40:50:12}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file of three nodes."""
    path = tmp_path / "nodes.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def source(path: Path) -> Iterator[FileSource]:
    """A started source for node1."""
    source = FileSource(path, "node1")
    source.start()
    yield source
    source.close()


def test_yaml_and_json_say_the_same(source: FileSource, path: Path) -> None:
    """YAML and JSON of one content give equal nodes, numbers-like MACs included."""
    from_yaml = source.nodes()
    assert from_yaml.error == ""
    assert from_yaml.network == IPv4Network("10.42.0.0/16")
    assert from_yaml.own
    assert from_yaml.own.vtep_mac == derived_mac("node1")
    assert [n.vtep_mac for n in from_yaml.peers] == ["0e:29:66:26:fa:6d", "10:20:30:40:50:12"]
    entries = [
        {
            "name": n.name,
            "address": str(n.address),
            "podCIDR": str(n.pod_cidr),
            "vtepMAC": n.vtep_mac,
        }
        for n in (from_yaml.own, *from_yaml.peers)
    ]
    path.write_text(json.dumps({"network": "10.42.0.0/16", "nodes": entries}))
    assert source.nodes().peers == from_yaml.peers


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("address: 192.168.77.3, ", "", "address is missing"),
        ("192.168.77.3", "192.168.77.300", "'192.168.77.300' is not an IPv4 address"),
        ("10.42.3.0/24", "10.42.3.7/24", "has host bits set"),
        ("10.42.3.0/24", "10.42.2.0/24", "overlaps 10.42.2.0/24 of node 'node2'"),
        ("10:20:30:40:50:12", "10:20:30:40:50", "MAC '10:20:30:40:50'"),
        ("podCIDR: 10.42.3.0/24", "podCidr: 10.42.3.0/24", "unknown key 'podCidr'"),
        ("address: 192.168.77.3", "address: [1]", "address must be a string"),
    ],
)
def test_a_bad_entry_is_named_and_keeps_its_last_good_state(
    source: FileSource, path: Path, old: str, new: str, reason: str
) -> None:
    """A bad entry is a Problem of its node; every node stays as last read."""
    before = source.nodes()
    path.write_text(GOOD.replace(old, new))
    after = source.nodes()
    assert after.error == ""
    assert after.own == before.own
    assert set(after.peers) == set(before.peers)
    [problem] = after.problems
    assert problem.node == "node3"
    assert reason in problem.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("nodes: [", "did not find expected node content at line "),
        ('{"nodes": [', "neither YAML nor JSON"),
        ("", "no list 'nodes'"),
        ("nodes: 5", "no list 'nodes'"),
        (GOOD.replace("name: node1", "name: other"), "'node1': is this node"),
        (GOOD.replace("10.42.0.0/16", "10.42.0.0/8"), "network '10.42.0.0/8'"),
        (GOOD.replace("10.42.0.0/16", "10.99.0.0/16"), "not inside the network"),
        ("[" * 50_000, "it is nested too deeply"),
        ("- " * 50_000, "it is nested too deeply"),
        ('{"nodes": [], "x": NaN}', "neither YAML nor JSON: NaN is no value"),
        ('{"nodes": [], "network": 10}', "network must be a string"),
    ],
    ids=[
        *("yaml", "json", "empty", "no-list", "own-missing", "network", "own-outside"),
        *("brackets", "dashes", "nan", "number"),
    ],
)
def test_an_unusable_file_leaves_the_last_good_set(
    source: FileSource, path: Path, content: str, reason: str
) -> None:
    """A file that can't be used is an error that names it; the nodes stay; mending it clears it."""
    before = source.nodes()
    path.write_text(content)
    for _ in range(2):
        after = source.nodes()
        assert str(path) in after.error
        assert reason in after.error
        assert "\n" not in after.error
        assert (after.own, after.peers) == (before.own, before.peers)
        assert after.read_at == before.read_at
    path.write_text(GOOD)
    assert source.nodes().error == ""


def test_a_file_that_vanishes_leaves_the_last_good_set(source: FileSource, path: Path) -> None:
    """An unreadable file is an error; the same file put back is read again."""
    before = source.nodes()
    path.unlink()
    assert "No such file" in source.nodes().error
    assert source.nodes().peers == before.peers
    path.write_text(GOOD)
    assert source.nodes().error == ""


def test_a_file_missing_at_start_is_an_error_and_no_nodes(tmp_path: Path) -> None:
    """Before the first good read there are no nodes, and the error says what to write where."""
    source = FileSource(tmp_path / "nodes.yaml", "node1")
    source.start()
    snapshot = source.nodes()
    source.close()
    assert (snapshot.own, snapshot.peers, snapshot.read_at) == (None, (), NOTHING_READ.read_at)
    assert "write the list of nodes there" in snapshot.error


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """A directory that can't be watched is the user's error at start."""
    with pytest.raises(ConfigError, match="make the directory"):
        FileSource(tmp_path / "none" / "nodes.yaml", "node1").start()


def test_a_directory_that_can_not_be_followed_any_more_is_read(
    source: FileSource, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was replaced, and the user has no inotify watch left: the next look finds the file."""

    def refuse(_: DirectoryWatch) -> None:
        raise OSError(28, "No space left on device")

    source.nodes()
    path.write_text(GOOD.replace("node3", "node4"))
    monkeypatch.setattr(DirectoryWatch, "read", refuse)
    assert source.on_event()
    assert {node.name for node in source.nodes().peers} == {"node2", "node4"}


@pytest.mark.parametrize("name", ["\ud800", "a\nb", ""])
def test_a_name_that_is_none_is_a_problem(source: FileSource, path: Path, name: str) -> None:
    """Its place in the list is told, for it can't be named."""
    entry = {"name": name, "address": "192.168.77.9", "podCIDR": "10.42.9.0/24"}
    own = {"name": "node1", "address": "192.168.77.1", "podCIDR": "10.42.1.0/24"}
    path.write_text(json.dumps({"network": "10.42.0.0/16", "nodes": [own, entry]}))
    [problem] = source.nodes().problems
    assert problem == Problem("entry 2", "has no name, or one that can't be printed")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(GOOD + "\n"),
        lambda path: (
            path.with_suffix(".new").write_text(GOOD + "\n")
            and path.with_suffix(".new").rename(path)
        ),
        lambda path: path.unlink(),
    ],
    ids=["write", "rename", "unlink"],
)
def test_every_way_to_change_the_file_is_seen(
    source: FileSource, path: Path, change: Callable[[Path], object]
) -> None:
    """Writing, replacing by rename and removing each make the descriptor readable, once drained."""
    source.nodes()
    assert not select.select([source.changed], [], [], 0)[0]
    change(path)
    assert select.select([source.changed], [], [], 1)[0]
    assert source.on_event()
    assert not select.select([source.changed], [], [], 0)[0]
    source.nodes()
    assert not source.on_event()


def test_other_files_of_the_directory_are_no_news(source: FileSource, path: Path) -> None:
    """A file that is written beside it wakes no reader for long, with or without the file."""
    source.nodes()
    path.with_name("other").write_text("x")
    assert select.select([source.changed], [], [], 1)[0]
    assert not source.on_event()
    path.unlink()
    assert source.on_event()
    source.nodes()
    path.with_name("other").write_text("y")
    assert not source.on_event()
