# SPDX-License-Identifier: Apache-2.0
"""Names of pods and nodes, from the agent's files."""

from __future__ import annotations

import json
import os
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from vxlane.pods.names import PodNames
from vxlane.trace import names
from vxlane.trace.names import Names, PodsOfNow, read_names


def test_files(tmp_path: Path) -> None:
    """Pods and nodes have the names that the agent's files give; a damaged file is no harm."""
    pods = tmp_path / "pods"
    pods.mkdir()
    (pods / "a,eth0.json").write_text('{"name": "default/web", "addresses": ["10.42.1.5"]}')
    (pods / "b,eth0.json").write_text('{"name": "", "addresses": ["10.42.1.6"]}')
    (pods / "c,eth0.json").write_text("{")
    (pods / "d,eth0.json").write_text('{"name": "x", "addresses": ["none"]}')
    nodes = {"own": ["node1", "192.168.77.1", "10.42.1.0/24", "", "vxlan"]}
    nodes["peers"] = [["node2", "192.168.77.2", "10.42.2.0/24", "", "vxlan"]]
    (tmp_path / "nodes.json").write_text(json.dumps(nodes))
    names = read_names(tmp_path)
    assert names.own == "node1"
    assert names.pods == PodNames({"default/web": [IPv4Address("10.42.1.5")]})
    assert names.nodes["node2"] == (IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"))
    assert names.by_address() == {
        IPv4Address("10.42.1.5"): "default/web",
        IPv4Address("192.168.77.1"): "node1",
        IPv4Address("192.168.77.2"): "node2",
    }


def test_no_files(tmp_path: Path) -> None:
    """Without the agent's files nothing has a name, and of nodes as much as can be read has."""
    assert read_names(tmp_path) == Names()
    (tmp_path / "nodes.json").write_text('{"own": null, "peers": []}')
    assert read_names(tmp_path) == Names()


NOON = 12 * 3600 * 10**9


def note_pod(directory: Path, number: int) -> None:
    """What an agent notes of a pod, at noon."""
    document = {"name": f"default/{number}", "addresses": [f"10.42.1.{number}"]}
    (directory / f"{number},eth0.json").write_text(json.dumps(document))
    os.utime(directory, ns=(NOON, NOON))


def test_pods_of_now(tmp_path: Path) -> None:
    """A pod that comes has its name from then on, and one that is gone has none."""
    pods, directory = PodsOfNow(tmp_path), tmp_path / "pods"
    assert pods.by_address() == {}
    directory.mkdir()
    note_pod(directory, 5)
    assert pods.by_address() == {IPv4Address("10.42.1.5"): "default/5"}
    (directory / "5,eth0.json").unlink()
    assert pods.by_address() == {}


def test_two_pods_of_one_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has its name though its file came right after a reading, and the directory's time is
    the one that was seen.
    """
    (tmp_path / "pods").mkdir()
    pods = PodsOfNow(tmp_path)
    for number, now in (5, NOON + 10**6), (6, NOON + 50 * 10**6):
        note_pod(tmp_path / "pods", number)
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        assert IPv4Address(f"10.42.1.{number}") in pods.by_address()


def test_names_are_not_read_for_each_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no pod comes or goes, no file is read again."""
    (tmp_path / "pods").mkdir()
    note_pod(tmp_path / "pods", 5)
    pods = PodsOfNow(tmp_path)
    before = pods.by_address()
    monkeypatch.delattr(names, "read_pod_names")
    assert pods.by_address() == before
