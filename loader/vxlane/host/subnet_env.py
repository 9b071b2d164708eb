# SPDX-License-Identifier: Apache-2.0
"""subnet.env: what the flannel CNI plugin reads of this node.

Owns the file's bytes: flannel's keys in flannel's order, one a line, no quotes, no export.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from vxlane.errors import KernelError
from vxlane.util import files


@dataclass(frozen=True, slots=True)
class SubnetEnv:
    """The content of the file."""

    network: IPv4Network
    subnet: IPv4Network
    mtu: int
    """Of pods, bytes."""
    is_masqueraded: bool

    def __str__(self) -> str:
        # The gateway's address (network + 1), as flannel writes the subnet.
        return (
            f"FLANNEL_NETWORK={self.network}\n"
            f"FLANNEL_SUBNET={self.subnet.network_address + 1}/{self.subnet.prefixlen}\n"
            f"FLANNEL_MTU={self.mtu}\n"
            f"FLANNEL_IPMASQ={str(self.is_masqueraded).lower()}\n"
        )


def read(path: Path) -> dict[str, str]:
    """The keys and values that are there; empty without a file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def write(path: Path, content: SubnetEnv) -> bool:
    """Put the file in place by rename, unless it says so already; whether it was written."""
    try:
        return files.settle(path, str(content))
    except OSError as error:
        advice = "give another place with --subnet-file"
        raise KernelError(f"write {path}", error.errno or 0, advice) from error
