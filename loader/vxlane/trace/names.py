# SPDX-License-Identifier: Apache-2.0
"""The names of pods and nodes, read from the agent's files. What can't be read has no name."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vxlane.datapath.records import IPAddress
from vxlane.overlay.node_cache import saved_nodes
from vxlane.pods.names import PodNames, read_pod_names


@dataclass(frozen=True, slots=True)
class Names:
    """What this node's agent knows by name."""

    pods: PodNames = field(default_factory=PodNames)
    nodes: dict[str, tuple[IPv4Address, IPv4Network]] = field(default_factory=dict)
    """Node, this one too -> its underlay address and its pods' CIDR."""
    own: str = ""
    """This node."""

    def by_address(self) -> dict[IPAddress, str]:
        """Every address that has a name."""
        named: dict[IPAddress, str] = {address: name for name, (address, _) in self.nodes.items()}
        return named | self.pods.by_address()


def read_names(state: Path) -> Names:
    """The names in the agent's state directory."""
    own, peers = saved_nodes(state)
    nodes = {node.name: (node.address, node.pod_cidr) for node in (own, *peers) if node}
    return Names(read_pod_names(state), nodes, own=own.name if own else "")
