# SPDX-License-Identifier: Apache-2.0
"""Names of pods and nodes, from the agent's files."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vxlane.pods.names import PodNames
from vxlane.trace.names import Names, read_names


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
