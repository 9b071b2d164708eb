# SPDX-License-Identifier: Apache-2.0
"""What flannel's subnet managers have in common: leases, their events, the network's configuration
(pkg/lease, pkg/subnet of v0.28).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Protocol


class NotNowError(Exception):
    """The server can't be asked, or does not hold what flanneld needs."""


@dataclass(frozen=True)
class Lease:
    """One node's subnet and what it says of itself (LeaseAttrs)."""

    subnet: IPv4Network
    attrs: dict[str, Any]

    @property
    def public_ip(self) -> str:
        """Where packets for its pods go."""
        return str(self.attrs["PublicIP"])

    @property
    def mac(self) -> str:
        """VTEP MAC."""
        return str(self.attrs["BackendData"]["VtepMAC"])


Event = tuple[str, Lease]
"""("added" or "removed", lease)."""


@dataclass(frozen=True)
class NetworkConfig:
    """net-conf.json after ParseConfig and CheckNetworkConfig."""

    network: IPv4Network
    backend: dict[str, Any]
    """Keys in lower case; Type among them."""
    length: int
    first: IPv4Address
    last: IPv4Address

    def fits(self, subnet: IPv4Network) -> bool:
        """Whether a node may keep `subnet` (isSubnetConfigCompat)."""
        return self.first <= subnet.network_address <= self.last and (
            subnet.prefixlen == self.length
        )


class LeaseWatcher:
    """Tells the events of a list of leases from what was known before (pkg/subnet/watch.go)."""

    def __init__(self, own: IPv4Network) -> None:
        self._own = own
        self._known: dict[IPv4Network, Lease] = {}

    def reset(self, leases: list[Lease]) -> list[Event]:
        """Leases that came and went; one that changed while nothing was watched is not told of."""
        others = {lease.subnet: lease for lease in leases if lease.subnet != self._own}
        added = [lease for lease in others.values() if lease.subnet not in self._known]
        removed = [lease for lease in self._known.values() if lease.subnet not in others]
        self._known = others
        return [("added", lease) for lease in added] + [("removed", lease) for lease in removed]

    def update(self, kind: str, lease: Lease) -> list[Event]:
        """One event; a deletion carries no attributes, and gets those that were known."""
        if lease.subnet == self._own:
            return []
        if kind == "added":
            self._known[lease.subnet] = lease
            return [(kind, lease)]
        return [(kind, self._known.pop(lease.subnet, lease))]


class Manager(Protocol):
    """A subnet manager."""

    def config(self) -> NetworkConfig:
        """The network's configuration; NotNowError: there is none, or it is wrong."""

    def stored_mac(self) -> str:
        """The VTEP MAC that this node published before; empty: the manager keeps none."""

    def acquire(self, attrs: dict[str, Any], previous: IPv4Network | None) -> Lease:
        """A lease for this node, which says `attrs` of itself."""

    def watch(self, own: Lease, tell: Callable[[Event], None]) -> str:
        """Tell of all other leases and of their changes, until our own is revoked; why it ended."""


def parse_config(document: dict[str, Any]) -> NetworkConfig:
    """A net-conf.json, read as Go reads it; ValueError, KeyError: it is wrong."""
    top = {key.lower(): value for key, value in document.items()}
    network = IPv4Network(top["network"])
    length = int(top.get("subnetlen") or max(24, network.prefixlen + 2))
    subnets = list(network.subnets(new_prefix=length))
    # Without a Backend flannel takes udp.
    backend = {key.lower(): it for key, it in (top.get("backend") or {"Type": "udp"}).items()}
    return NetworkConfig(
        network=network,
        backend={**backend, "type": str(backend["type"]).lower()},
        length=length,
        first=IPv4Address(top.get("subnetmin") or subnets[1].network_address),
        last=IPv4Address(top.get("subnetmax") or subnets[-1].network_address),
    )
