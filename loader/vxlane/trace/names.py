# SPDX-License-Identifier: Apache-2.0
"""The names of pods and nodes, read from the agent's files. What can't be read has no name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from vxlane.datapath.records import IPAddress
from vxlane.overlay.node_cache import saved_nodes
from vxlane.pods.names import PodNames, read_pod_names

_TICK = 10_000_000
"""Ns. The time of a directory's change may be as coarse as this (CONFIG_HZ=100)."""


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


class PodsOfNow:
    """The names of pods while these come and go."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._seen: tuple[int, bool] | None = None
        self._names: Mapping[IPAddress, str] = {}

    def by_address(self) -> Mapping[IPAddress, str]:
        """Every pod's address that has a name; read anew when the agent's files have changed."""
        changed = 0
        with contextlib.suppress(OSError):
            changed = (self._state / "pods").stat().st_mtime_ns
        # A change of the same tick as one that was seen has the same time.
        seen = changed, time.time_ns() - changed > _TICK
        if seen != self._seen:
            self._names, self._seen = read_pod_names(self._state).by_address(), seen
        return self._names


def read_names(state: Path) -> Names:
    """The names in the agent's state directory."""
    own, peers = saved_nodes(state)
    nodes = {node.name: (node.address, node.pod_cidr) for node in (own, *peers) if node}
    return Names(read_pod_names(state), nodes, own=own.name if own else "")
