# SPDX-License-Identifier: Apache-2.0
"""subnet.env, which tells the flannel CNI plugin about this node's network.

Owns the file's bytes: flannel's keys in flannel's order, one on each line, no quotes, no export.
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
        # flannel writes the subnet with the gateway's address: network + 1.
        return (
            f"FLANNEL_NETWORK={self.network}\n"
            f"FLANNEL_SUBNET={self.subnet.network_address + 1}/{self.subnet.prefixlen}\n"
            f"FLANNEL_MTU={self.mtu}\n"
            f"FLANNEL_IPMASQ={str(self.is_masqueraded).lower()}\n"
        )


def read(path: Path) -> dict[str, str]:
    """The file's keys and values; empty without a file."""
    try:
        lines = path.read_text(errors="backslashreplace").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def write(path: Path, content: SubnetEnv) -> bool:
    """Write the file unless it has this content. True: it was written."""
    try:
        return files.write_if_changed(path, str(content))
    except OSError as error:
        advice = "give another place with --subnet-file"
        raise KernelError(f"write {path}", error.errno or 0, advice) from error
