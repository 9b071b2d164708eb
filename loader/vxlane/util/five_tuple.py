# SPDX-License-Identifier: Apache-2.0
"""What tells connections apart: addresses, ports, protocol. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address


@dataclass(frozen=True, slots=True)
class FiveTuple:
    """A connection as its local pod sees it. An ICMP echo has its identifier and its type in the
    place of the two ports.
    """

    local: IPv4Address | IPv6Address
    remote: IPv4Address | IPv6Address
    local_port: int
    remote_port: int
    protocol: int
    """IPPROTO_*."""
