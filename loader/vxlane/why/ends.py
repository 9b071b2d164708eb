# SPDX-License-Identifier: Apache-2.0
"""The two ends of a flow as a person writes them: SRC[:PORT] and DST[:PORT].

An end is an IPv4 address, or a name of a pod of this node: that of its veth, or the one that its
runtime gave, with or without the namespace. Pure.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.datapath.records import IPAddress
from vxlane.errors import OptionError
from vxlane.util.five_tuple import FiveTuple

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "icmp": socket.IPPROTO_ICMP}
NAMES = {number: name for name, number in PROTOCOLS.items()}

_HIGHEST_PORT = 0xFFFF


@dataclass(frozen=True, slots=True)
class End:
    """One end of a flow; `port` of None: any."""

    address: IPv4Address
    port: int | None = None

    def is_at(self, address: object, port: int) -> bool:
        """Whether a flow with that end is meant."""
        return self.address == address and self.port in {None, port}


@dataclass(frozen=True, slots=True)
class Question:
    """Whose packets are asked about: from `source` to `destination`; `protocol` of None: any."""

    source: End
    destination: End
    protocol: int | None = None

    def tuples(self) -> list[FiveTuple]:
        """The 5-tuples of TCP and UDP that both ports name; none where one of them is missing."""
        source, destination = self.source, self.destination
        if source.port is None or destination.port is None:
            return []
        ends = source.address, destination.address, source.port, destination.port
        numbers = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
        return [FiveTuple(*ends, each) for each in numbers if self.protocol in {None, each}]

    def is_about(self, sent: FiveTuple) -> bool:
        """Whether packets of that 5-tuple are meant; an ICMP echo's identifier is at both ends."""
        if self.protocol not in {None, sent.protocol}:
            return False
        far = sent.local_port if sent.protocol == socket.IPPROTO_ICMP else sent.remote_port
        return self.source.is_at(sent.local, sent.local_port) and self.destination.is_at(
            sent.remote, far
        )


def parse_end(text: str, find: Callable[[str], IPAddress]) -> End:
    """An end, its address by `find`; OptionError says what is wrong with it."""
    name, colon, port = text.rpartition(":")
    if not colon:
        name, port = text, ""
    if name.count(":"):
        raise OptionError(f"{text!r} is an IPv6 address; only IPv4 is bypassed")
    if colon and not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
        raise OptionError(f"{text!r}: {port!r} is not a port; give a number up to 65535, or none")
    return End(_address(name, find), int(port) if colon else None)


def _address(name: str, find: Callable[[str], IPAddress]) -> IPv4Address:
    found = find(name)
    if not isinstance(found, IPv4Address):
        raise OptionError(f"{name!r} is not an IPv4 address; only IPv4 is bypassed")
    return found
