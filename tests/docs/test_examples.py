# SPDX-License-Identifier: Apache-2.0
"""The examples in docs/examples work."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from vxlane.config import read_network
from vxlane.sources.file import FileSource

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_nodes_file(name):
    """Each node of nodes.yaml finds itself and two peers in it, and nothing to complain of."""
    with closing(FileSource(EXAMPLES / "nodes.yaml", name)) as source:
        source.start()
        found = source.nodes()
    assert (found.error, found.problems) == ("", ())
    assert found.own.name == name
    assert len(found.peers) == 2


def test_net_conf():
    """net-conf.json is a VXLAN backend for the network of nodes.yaml."""
    network = read_network(EXAMPLES / "net-conf.json")
    assert (str(network.cidr), network.vni, network.port) == ("10.42.0.0/16", 1, 8472)


def test_every_example_is_tried():
    """No example is without a test here."""
    names = {path.name for path in EXAMPLES.iterdir()}
    assert names == {"nodes.yaml", "net-conf.json"}
