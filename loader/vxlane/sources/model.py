# SPDX-License-Identifier: Apache-2.0
"""What a node is, and the checks that all sources share.

Pure: no files, no sockets, no kernel. Imports the errors only.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from vxlane.errors import ConfigError

_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


class Backend(enum.Enum):
    """How packets reach a node's pods, by flannel's names (annotation backend-type)."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"
    OTHER = "other"

    @classmethod
    def of(cls, word: str) -> Backend:
        """The backend with flannel's name `word`. OTHER: vxlane has no path to such nodes."""
        try:
            return cls(word)
        except ValueError:
            return cls.OTHER


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster, ours or a peer."""

    name: str
    address: IPv4Address
    """Of its VTEP on the underlay (flannel's public-ip)."""
    pod_cidr: IPv4Network
    vtep_mac: str
    """Lower case, colons."""
    backend: Backend = Backend.VXLAN


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that can't be used, or that contradicts another."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """What other nodes have to know of this one. A source that can write publishes it."""

    address: IPv4Address
    backend: Backend
    vni: int
    vtep_mac: str


def derived_mac(name: str) -> str:
    """The VTEP MAC of a node without a MAC of its own. Every node computes the same one.

    It is a locally administered unicast address, as flannel's random ones are.
    """
    octets = bytearray(hashlib.sha256(f"vxlane vtep {name}".encode()).digest()[:6])
    octets[0] = octets[0] & 0xFE | 0x02
    return octets.hex(":")


def parse_mac(text: str) -> str:
    """`text` as a lower-case unicast MAC, or ConfigError."""
    mac = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise ConfigError(f"MAC {text!r} is not six hexadecimal octets with colons")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ConfigError(f"MAC {text!r} is not a unicast address")
    return mac


def parse_address(text: str) -> IPv4Address:
    """`text` as an underlay address that a packet can be sent to, or ConfigError."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise ConfigError(f"address {text!r} is not an IPv4 address") from None
    if not _is_unicast(address):
        raise ConfigError(f"address {text!r} can't be a node's underlay address")
    return address


def _is_unicast(address: IPv4Address) -> bool:
    return not (address.is_multicast or address.is_unspecified or address.is_loopback)


def parse_cidr(text: str) -> IPv4Network:
    """`text` as a pod CIDR, or ConfigError."""
    try:
        cidr = IPv4Network(text)
    except ValueError as error:
        raise ConfigError(f"pod CIDR {text!r} is not an IPv4 network: {error}") from None
    if not 1 <= cidr.prefixlen <= 30:
        raise ConfigError(f"pod CIDR {text!r} must be between a /1 and a /30")
    if not _is_unicast(cidr.network_address):
        # The kernel takes no route to it, and a node that lacks a route is not ready.
        raise ConfigError(f"pod CIDR {text!r} can't have addresses of pods")
    return cidr
