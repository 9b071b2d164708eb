# SPDX-License-Identifier: Apache-2.0
"""Which pods must stay on the kernel path because of what was found. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from vxlane.mechanisms.kinds import Finding, Kind, Ranges
from vxlane.mechanisms.packet import is_named

Pods = Mapping[str, Collection[IPv4Address]]
"""Names of pods' bridge ports, and the addresses behind each."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The pods and flows whose packets are left to the kernel path."""

    all: bool = False
    ports: frozenset[str] = frozenset()
    """Bridge ports of single pods. A name may belong to no pod."""
    translated: bool = False
    """Whether flows that netfilter translates are left to it, too."""
    may_drop: bool = True
    """Whether a rule may drop packets of established connections."""


def judged(
    found: Iterable[Finding], pods: Pods, local: IPv4Network, ignored: Collection[Kind]
) -> Judged:
    """What `found` leaves to the kernel path. Kinds that are `ignored` leave nothing to it."""
    ports: set[str] = set()
    translated = False
    for finding in found:
        if finding.kind in ignored:
            continue
        concerned = _concerned(finding, pods, local)
        if finding.is_translated:
            translated |= concerned is None or not concerned.isdisjoint(pods)
        elif concerned is None:
            return Judged(all=True)
        else:
            ports |= concerned
    return Judged(ports=frozenset(ports), translated=translated)


def _concerned(finding: Finding, pods: Pods, local: IPv4Network) -> set[str] | None:
    """The bridge ports of the pods that a finding is about; None means all pods.

    A pod is left to the kernel path in both directions. So a rule about packets from one local pod
    concerns that pod only. A rule about packets from a remote pod concerns every pod here.
    """
    scope = finding.scope
    if scope.ports is not None:
        names = {name for name in scope.ports if not name.endswith("*")}
        prefixes = scope.ports - names
        return names | {port for port in pods if any(is_named(port, each) for each in prefixes)}
    for ranges in (scope.sources, scope.destinations):
        if ranges is not None and _are_within(ranges, local):
            return {port for port, addresses in pods.items() if _have(ranges, addresses)}
    return None


def _are_within(ranges: Ranges, network: IPv4Network) -> bool:
    first, last = int(network.network_address), int(network.broadcast_address)
    return all(first <= low and high <= last for low, high in ranges)


def _have(ranges: Ranges, addresses: Collection[IPv4Address]) -> bool:
    return any(low <= int(address) <= high for address in addresses for low, high in ranges)
