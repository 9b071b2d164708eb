# SPDX-License-Identifier: Apache-2.0
"""The names of pods and nodes, read from the agent's files. What can't be read has no name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from vxlane.util.jsontext import parse_json


@dataclass(frozen=True, slots=True)
class Names:
    """What this node's agent knows by name."""

    pods: dict[str, list[IPv4Address]] = field(default_factory=dict)
    """namespace/pod -> its addresses."""
    nodes: dict[str, tuple[IPv4Address, IPv4Network]] = field(default_factory=dict)
    """Node, this one too -> its underlay address and its pods' CIDR."""
    own: str = ""
    """This node."""

    def pods_called(self, name: str) -> dict[str, list[IPv4Address]]:
        """The pods that `name` may mean: with their namespace or without."""
        return {
            whole: addresses
            for whole, addresses in self.pods.items()
            if name in (whole, whole.rpartition("/")[2])
        }

    def by_address(self) -> dict[IPv4Address, str]:
        """Every address that has a name."""
        named = {address: name for name, (address, _) in self.nodes.items()}
        return named | {
            address: name for name, addresses in self.pods.items() for address in addresses
        }


def read_names(state: Path) -> Names:
    """The names in the agent's state directory."""
    pods: dict[str, list[IPv4Address]] = {}
    for document in _documents(state / "pods"):
        try:
            if document["name"]:
                addresses = [IPv4Address(address) for address in document["addresses"]]
                pods.setdefault(str(document["name"]), []).extend(addresses)
        except (TypeError, KeyError, ValueError):
            continue
    nodes = dict(_nodes(state / "nodes.json"))
    return Names(pods, nodes, own=next(iter(nodes), ""))


def _documents(directory: Path) -> Iterator[Any]:
    for path in sorted(directory.glob("*.json")):
        try:
            yield parse_json(path.read_bytes())
        except (OSError, ValueError):
            continue


def _nodes(path: Path) -> Iterator[tuple[str, tuple[IPv4Address, IPv4Network]]]:
    """Of what overlay/node_cache.py writes, this node first: name, address and CIDR begin each."""
    try:
        document = parse_json(path.read_bytes())
        for name, address, cidr, *_ in [document["own"], *document["peers"]]:
            yield str(name), (IPv4Address(address), IPv4Network(cidr))
    except (OSError, ValueError, TypeError, KeyError):
        return
