# SPDX-License-Identifier: Apache-2.0
"""The last nodes, on disk: whose they are, and when they are not used."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from vxlane.config import Config, Network
from vxlane.overlay.node_cache import NodeCache
from vxlane.sources.model import Node
from vxlane.sources.snapshot import NOTHING_READ, Snapshot

OWN = Node("node1", IPv4Address("192.168.77.1"), IPv4Network("10.42.1.0/24"), "02:00:00:00:00:01")
PEER = Node("node2", IPv4Address("192.168.77.2"), IPv4Network("10.42.2.0/24"), "02:00:00:00:00:02")
CLUSTER = IPv4Network("10.42.0.0/16")
READ = Snapshot(OWN, (PEER,), network=CLUSTER, read_at=1.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """An agent that takes its nodes from etcd."""
    return Config("node1", tmp_path, origin="etcd /one", network=Network(cidr=CLUSTER))


def test_what_was_read_is_loaded(config: Config) -> None:
    """Nodes that a source was read to have are there for the next agent."""
    NodeCache(config).save(READ)
    loaded = NodeCache(config).load()
    assert (loaded.own, loaded.peers, loaded.network) == (OWN, (PEER,), CLUSTER)
    assert loaded.read_at is None


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "etcd /two"},
        {"origin": "kubernetes flannel.alpha.coreos.com"},
        {"network": Network(cidr=IPv4Network("10.64.0.0/16"))},
        {"node_name": "node2"},
    ],
    ids=["prefix", "kind", "network", "name"],
)
def test_another_clusters_nodes_are_not_used(config: Config, change: dict[str, object]) -> None:
    """Another prefix, source or network is another cluster, another name is another node."""
    NodeCache(config).save(READ)
    other = dataclasses.replace(config, **change)  # type: ignore[arg-type]
    assert NodeCache(other).load() is NOTHING_READ


def test_what_was_not_read_is_not_saved(config: Config) -> None:
    """Nodes that come from the cache itself, or a list without this node, are not written."""
    cache = NodeCache(config)
    cache.save(dataclasses.replace(READ, read_at=None))
    cache.save(dataclasses.replace(READ, own=None))
    assert not list(config.state.iterdir())


def test_a_change_is_saved_and_nothing_else(config: Config) -> None:
    """A snapshot with the same nodes is not written again."""
    cache, file = NodeCache(config), config.state / "nodes.json"
    cache.save(READ)
    file.unlink()
    cache.save(dataclasses.replace(READ, read_at=2.0))
    assert not file.exists()
    cache.save(dataclasses.replace(READ, peers=()))
    assert NodeCache(config).load().peers == ()


@pytest.mark.parametrize("content", ["", "{}", "[]", "[" * 100_000, '{"own": []}', "\x00\xff"])
def test_a_damaged_file_is_no_memory(config: Config, content: str) -> None:
    """A file that no agent wrote is reported and not used."""
    (config.state / "nodes.json").write_text(content, encoding="latin-1")
    assert NodeCache(config).load() is NOTHING_READ
