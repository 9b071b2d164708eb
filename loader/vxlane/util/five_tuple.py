# SPDX-License-Identifier: Apache-2.0
"""What tells connections apart: addresses, ports, protocol. Pure."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own is 3.11's


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

    @property
    def reversed(self) -> Self:
        """The same connection as its other end sees it."""
        ports = self.remote_port, self.local_port
        if self.protocol == socket.IPPROTO_ICMP:
            # The identifier stays, and the type of a request is 8 more than that of its reply.
            ports = self.local_port, 8 - self.remote_port
        return replace(
            self,
            local=self.remote,
            remote=self.local,
            local_port=ports[0],
            remote_port=ports[1],
        )
