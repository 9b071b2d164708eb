# SPDX-License-Identifier: Apache-2.0
"""The parts of a lab: names, addresses, and the file that other processes read.

    lab-switch              a bridge; the underlay, 192.168.77.0/24
    lab-node1  .11          eth0; pods 10.42.1.0/24
    lab-node1-pod1          eth0, made by the CNI plugins
    lab-node2  .12          ...

The name of a node or pod is the name of its network namespace. Pure: no kernel, no files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from vxlane.errors import OptionError
from vxlane.sources.model import derived_mac

LABS = Path("/run/vxlane-lab")
"""Each lab has a directory here. A lab makes nothing outside of it and its namespaces but what all
agents share: what they found this boot's kernel to do (vxlane.probes.known)."""

UNDERLAY = IPv4Network("192.168.77.0/24")
POD_NETWORK = IPv4Network("10.42.0.0/16")
MAX_NODES = 200
"""With more nodes 192.168.77.11 + n or 10.42.n.0/24 would leave its network."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class LabNode:
    """One node: a namespace with eth0 on the switch."""

    name: str
    address: IPv4Address
    pod_cidr: IPv4Network
    vtep_mac: str
    kernel_only: bool
    """No vxlane program runs there; ip, bridge and iptables made its overlay."""
    directory: Path
    """Its state directory: the agent's, and the CNI plugins' files."""

    def to_json(self) -> dict[str, Any]:
        """The keys of `vxlane lab status --json` but agent_pid, which is not part of the file."""
        return {
            "name": self.name,
            "netns": self.name,
            "address": str(self.address),
            "podCIDR": str(self.pod_cidr),
            "vtepMAC": self.vtep_mac,
            "kernel_only": self.kernel_only,
            "state_dir": str(self.directory),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> LabNode:
        """Undo `to_json`."""
        return cls(
            name=entry["name"],
            address=IPv4Address(entry["address"]),
            pod_cidr=IPv4Network(entry["podCIDR"]),
            vtep_mac=entry["vtepMAC"],
            kernel_only=entry["kernel_only"],
            directory=Path(entry["state_dir"]),
        )


@dataclass(frozen=True, slots=True)
class LabPod:
    """One pod: a namespace that the CNI plugins gave an eth0."""

    name: str
    node: str
    address: IPv4Address
    veth: str
    """Host end of its eth0, a device of the node's namespace."""
    mac: str

    def to_json(self) -> dict[str, Any]:
        """The keys of `vxlane lab status --json`."""
        entry = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return entry | {"address": str(self.address), "netns": self.name}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> LabPod:
        """Undo `to_json`."""
        known = {field.name: entry[field.name] for field in dataclasses.fields(cls)}
        return cls(**known | {"address": IPv4Address(entry["address"])})


def check_name(name: str) -> str:
    """`name`, if it can be a lab's: it becomes part of namespaces' names and of a path."""
    if not _NAME.fullmatch(name):
        raise OptionError(
            f'lab name "{name}" can\'t be used; give up to 31 lower-case letters, digits and "-",'
            " the first of them a letter"
        )
    return name


def switch_name(lab: str) -> str:
    """The namespace that holds the underlay's bridge."""
    return f"{lab}-switch"


def is_namespace_of(lab: str, namespace: str) -> bool:
    """Whether a lab of this name would have made `namespace`.

    Stricter than a prefix: lab "a" must not take "a-b-node1" of lab "a-b" for its own.
    """
    number = "[1-9][0-9]*"
    part = rf"{re.escape(lab)}-(switch|outside|node{number}(-pod{number})?)"
    return bool(re.fullmatch(part, namespace))


def plan_nodes(lab: str, count: int, *, kernel_only: int) -> tuple[LabNode, ...]:
    """The `count` nodes of a lab. The last `kernel_only` of them run nothing of vxlane."""
    if not 1 <= count <= MAX_NODES:
        raise OptionError(f"a lab has 1 to {MAX_NODES} nodes, not {count}")
    if not 0 <= kernel_only <= count:
        raise OptionError(f"{kernel_only} kernel-only nodes are more than the lab's {count}")
    return tuple(
        _plan_node(lab, number, kernel_only=number > count - kernel_only)
        for number in range(1, count + 1)
    )


def _plan_node(lab: str, number: int, *, kernel_only: bool) -> LabNode:
    name = f"{lab}-node{number}"
    return LabNode(
        name=name,
        address=UNDERLAY[10 + number],
        pod_cidr=IPv4Network((POD_NETWORK[number << 8], 24)),
        vtep_mac=derived_mac(name),
        kernel_only=kernel_only,
        directory=LABS / lab / f"node{number}",
    )
