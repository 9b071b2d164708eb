# SPDX-License-Identifier: Apache-2.0
"""flannel's keys and values in etcd, and its choice of a node's subnet.

Pure. Forms and rules are flannel's pkg/subnet (subnet.go, config.go) and pkg/subnet/etcd.

    <prefix>/config                     {"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}
    <prefix>/subnets/10.42.59.0-24      {"PublicIP":"192.168.1.13","PublicIPv6":null,
                                         "BackendType":"vxlan","BackendData":{...}}

A node has no name there. It is known by its PublicIP.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from vxlane.errors import ConfigError
from vxlane.sources.model import (
    Announcement,
    Backend,
    Node,
    Problem,
    parse_address,
    parse_cidr,
)
from vxlane.sources.wire import backend_data, folded, net_conf, vtep_mac
from vxlane.util.jsontext import parse_json

# A dual-stack key has its IPv6 subnet after an ampersand: 10.42.59.0-24&fd00:42:0:3b::-64.
_SUBNET = re.compile(r"(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&[0-9a-f:]+-\d+)?")
_CANDIDATES = 100
"""Free subnets to choose from: so many that nodes which start together seldom choose the same."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The subnets that nodes get: those of `length` bits from `first` to `last`, in `network`."""

    network: IPv4Network
    length: int
    first: IPv4Address
    last: IPv4Address

    def holds(self, cidr: IPv4Network) -> bool:
        """Whether a node may keep `cidr`."""
        return cidr.prefixlen == self.length and self.first <= cidr.network_address <= self.last

    def choose(self, taken: Iterable[IPv4Network]) -> IPv4Network:
        """A subnet that overlaps none of `taken`; ConfigError: there is none."""
        ranges = sorted((int(c.network_address), int(c.broadcast_address)) for c in taken)
        size = 1 << 32 - self.length
        free: list[int] = []
        start, held = int(self.first), iter([*ranges, (1 << 32, 1 << 32)])
        low, high = next(held)
        while start <= int(self.last) and len(free) < _CANDIDATES:
            if start + size <= low:
                free.append(start)
                start += size
            elif high < start:
                low, high = next(held)
            else:
                start += size
        if not free:
            raise ConfigError(f"no subnet of {self.network} is free; give a larger Network")
        return IPv4Network((random.choice(free), self.length))  # noqa: S311 - avoids races only


def parse_pool(config: bytes) -> Pool:
    """The pool of the network's config; ConfigError as flannel's CheckNetworkConfig."""
    members = net_conf(config)
    try:
        network = IPv4Network(str(members.get("network")))
        length = _length(network, int(members.get("subnetlen") or 0))
        step = 1 << 32 - length
        # flannel leaves the first subnet unused, which begins with the network's own address.
        first = IPv4Address(members.get("subnetmin") or int(network.network_address) + step)
        last = IPv4Address(members.get("subnetmax") or int(network.broadcast_address) + 1 - step)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"is wrong: {error}") from None
    for name, address in ("SubnetMin", first), ("SubnetMax", last):
        if address not in network or int(address) % step:
            where = f"on a /{length} boundary of {network}"
            raise ConfigError(f"is wrong: {name} {address} is not {where}")
    return Pool(network, length, first, last)


def _length(network: IPv4Network, wanted: int) -> int:
    if not wanted:
        wanted = max(24, network.prefixlen + 2)
    if not network.prefixlen + 2 <= wanted <= 30:
        raise ValueError(
            f"SubnetLen {wanted} must be at least 2 more than {network}, and at most 30"
        )
    return wanted


def key_of(cidr: IPv4Network) -> str:
    """The last part of the key of a node with `cidr`."""
    return f"{cidr.network_address}-{cidr.prefixlen}"


def cidr_of(key: str) -> IPv4Network:
    """The pod CIDR in a key, or ConfigError."""
    match = _SUBNET.fullmatch(key.rpartition("/")[2])
    if not match:
        raise ConfigError(f"key {key!r} is not of the form 10.42.1.0-24")
    return parse_cidr(f"{match[1]}/{match[2]}")


def value_of(own: Announcement) -> bytes:
    """The value that announces `own`, as Go's encoder writes flannel's LeaseAttrs."""
    attributes: dict[str, Any] = {
        "PublicIP": str(own.address),
        "PublicIPv6": None,
        "BackendType": own.backend.value,
    }
    if own.backend is Backend.VXLAN:
        attributes["BackendData"] = parse_json(backend_data(own))
    return json.dumps(attributes, separators=(",", ":")).encode()


def address_of(value: bytes) -> IPv4Address | None:
    """The PublicIP of the node that holds a subnet; None if the value is garbage."""
    try:
        return parse_address(str(_attributes(value).get("publicip")))
    except ConfigError:
        return None


def entry(key: str, value: bytes) -> Node | Problem:
    """The node that a key describes."""
    try:
        attributes = _attributes(value)
        address = parse_address(str(attributes.get("publicip")))
        backend = Backend.of(str(attributes.get("backendtype")))
        mac = vtep_mac(attributes.get("backenddata"), backend, name=str(address))
        return Node(str(address), address, cidr_of(key), mac, backend)
    except ConfigError as error:
        return Problem(key.rpartition("/")[2], str(error))


def _attributes(value: bytes) -> dict[str, Any]:
    try:
        document = parse_json(value)
    except ValueError:
        raise ConfigError("its value is not JSON") from None
    if not isinstance(document, dict):
        raise ConfigError("its value is not a JSON object")
    return folded(document)
