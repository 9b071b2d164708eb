# SPDX-License-Identifier: Apache-2.0
r"""Pods that were there before the agent: what libcni and host-local remember of them.

    <cache>/results/<network>-<container id>-<ifname>   libcni: the chain's final result
    <cache>/networks/<network>/<address>                host-local: "<container id>\r\n<ifname>"

Both outlive what they speak of: a runtime that is killed, or a node that loses power, leaves
entries of pods that are gone. So an address counts only while host-local agrees who has it,
and everything said here is a claim, which whoever attaches a pod verifies against the kernel.
Reads files, changes nothing; imports nothing of vxlane.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import Any

CACHE = Path("/var/lib/cni")
"""Where both are unless a runtime, or a network's ipam.dataDir, says otherwise."""

_MISSHAPEN = (ValueError, KeyError, TypeError, AttributeError, IndexError)

Json = dict[str, Any]
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Claim:
    """One interface of one container, as the runtime's files have it."""

    container_id: str
    ifname: str
    network: str
    netns: str
    """Path of the container's network namespace, "" when an older libcni wrote the entry."""
    name: str
    """namespace/pod, "" when the runtime is no Kubernetes'."""
    mac: str
    """Of the container's interface, lower-case; "" when the result does not tell."""
    addresses: tuple[Address, ...]
    host_ifnames: tuple[str, ...]
    """Interfaces on the host that the chain made or used; the veth is one, the bridge another."""


def pods(cache: Path) -> list[Claim]:
    """Claims to addresses that host-local confirms, in order of container id.

    A network without a directory of leases has another IPAM, whose addresses stand unconfirmed.
    """
    found = []
    for claim in _claims(cache):
        leases = cache / "networks" / claim.network
        held = tuple(address for address in claim.addresses if _holds(claim, leases, address))
        if held:
            found.append(replace(claim, addresses=held))
    return sorted(found, key=lambda claim: (claim.container_id, claim.ifname))


def made_with(plugin: str, cache: Path) -> int:
    """How many entries have a plugin of the type `plugin` in their chain."""
    return sum(plugin in _chain(entry) for entry in _entries(cache))


def _claims(cache: Path) -> Iterator[Claim]:
    """Of every entry of libcni's that makes sense."""
    for entry in _entries(cache):
        try:
            yield _claim(entry)
        except _MISSHAPEN:
            continue  # of an older libcni, or no entry at all


def _entries(cache: Path) -> Iterator[Json]:
    results = cache / "results"
    for file in sorted(results.iterdir()) if results.is_dir() else ():
        try:
            entry = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue  # half written
        if isinstance(entry, dict):
            yield entry


def _chain(entry: Json) -> list[str]:
    """Types of the plugins that made it."""
    try:
        config = json.loads(base64.b64decode(entry["config"]))
        return [str(plugin["type"]) for plugin in config.get("plugins") or [config]]
    except _MISSHAPEN:
        return []


def _claim(entry: Json) -> Claim:
    """An entry of the kind cniCacheV1 (containernetworking/cni, libcni/api.go, cachedInfo)."""
    result, ifname = entry["result"], str(entry["ifName"])
    interfaces = result.get("interfaces") or []
    own = [i for i, known in enumerate(interfaces) if _is_own(known, ifname)]
    macs = [str(interfaces[i].get("mac") or "").lower() for i in own]
    return Claim(
        container_id=str(entry["containerId"]),
        ifname=ifname,
        network=str(entry["networkName"]),
        netns=str(entry.get("netns") or ""),
        name=_pod_name(entry.get("cniArgs") or []),
        mac=macs[0] if macs else "",
        addresses=tuple(
            ip_interface(ip["address"]).ip
            for ip in result.get("ips") or []
            if ip.get("interface") in (None, *own)
        ),
        host_ifnames=tuple(str(i["name"]) for i in interfaces if not i.get("sandbox")),
    )


def _is_own(interface: Json, ifname: str) -> bool:
    return bool(interface.get("sandbox")) and interface["name"] == ifname


def _pod_name(arguments: list[list[str]]) -> str:
    """namespace/name of CNI_ARGS, which the cache holds as pairs."""
    said = {pair[0]: pair[1] for pair in arguments}
    names = (said.get("K8S_POD_NAMESPACE"), said.get("K8S_POD_NAME"))
    return "/".join(name for name in names if name)


def _holds(claim: Claim, leases: Path, address: Address) -> bool:
    """Whether host-local gave `address` to the claim's container."""
    if not leases.is_dir():
        return True
    try:
        lease = (leases / str(address)).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return False
    return lease[:1] == [claim.container_id] and lease[1:2] in ([], [claim.ifname])
