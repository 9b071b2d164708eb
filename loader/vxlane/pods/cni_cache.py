# SPDX-License-Identifier: Apache-2.0
r"""Finds pods that the CNI plugin did not report, in the files of the container runtime.

    <cache>/results/<network>-<container id>-<ifname>   libcni: the chain's final result
    <cache>/networks/<network>/<address>                host-local: "<container id>\r\n<ifname>"

libcni writes its file when the last plugin of the chain has succeeded (libcni/api.go,
AddNetworkList), so the pods in these files are complete. When a runtime is killed or a node loses
power, both files may outlive their pod. So an address counts only while host-local says that this
container has it, and a pod only while the kernel shows it (`confirmed`). Reads files and devices,
and changes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from typing import Any

from vxlane.errors import ConfigError
from vxlane.host.devices import Device, Devices
from vxlane.host.veths import FarEnd, far_end, leads_elsewhere
from vxlane.pods.interfaces import NETWORK_NAME, Key, PodInterface, is_ifname, parse_key
from vxlane.util.jsontext import parse_json

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError)

Json = dict[str, Any]
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class CachedPod:
    """One interface of one container, as the runtime's files describe it."""

    container_id: str
    ifname: str
    network: str
    netns: str
    """Path of the container's network namespace; "" if an older libcni wrote the entry."""
    name: str
    """namespace/pod; "" if the runtime is not one of Kubernetes."""
    mac: str
    """The MAC of the container's interface, lower-case; "" if the result has none."""
    addresses: tuple[Address, ...]
    host_ifnames: tuple[str, ...]
    """The host's interfaces that the chain made or used: the bridge and the veth."""

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.container_id, self.ifname


def read(cache: Path) -> list[CachedPod]:
    """The pods, with the addresses that host-local confirms, by container ID.

    A network without a directory of leases has another IPAM plugin. Its addresses are not checked.
    """
    results = cache / "results"
    files = results.iterdir() if results.is_dir() else ()
    found = (pod for file in files if (pod := read_one(cache, file.name)))
    return sorted(found, key=lambda pod: (pod.container_id, pod.ifname))


def read_one(cache: Path, name: str) -> CachedPod | None:
    """The pod in the file `name`, with its confirmed addresses. None: it has none, or is gone."""
    entry = _entry(cache / "results" / name)
    try:
        pod = _pod(entry) if entry else None
    except (*_MALFORMED, ConfigError):
        return None  # an older libcni wrote it, or it is not an entry
    if pod is None:
        return None
    leases = cache / "networks" / pod.network
    held = tuple(address for address in pod.addresses if _holds(pod, leases, address))
    return replace(pod, addresses=held) if held else None


def made_with(plugin: str, cache: Path) -> int:
    """The number of entries that have a plugin of type `plugin` in their chain."""
    return sum(plugin in _chain(entry) for entry in _entries(cache))


def confirmed(pods: Iterable[CachedPod], devices: Devices) -> Iterator[PodInterface]:
    """The pods that the kernel shows, as the CNI plugin would have described them.

    The kernel shows a pod if a veth on the host has one of its names, and the veth's other end has
    the pod's interface name and MAC. The other end must also be in the pod's network namespace, if
    that can be seen from here. So another veth that has the name by now does not pass.
    """
    for pod in pods:
        for veth in _veths(pod, devices):
            end = far_end(devices.socket, veth.index)
            is_it = end and end.name == pod.ifname and pod.mac in ("", end.mac)
            if end and is_it and not leads_elsewhere(devices.socket, end, Path(pod.netns)):
                yield _interface(pod, veth, end)


def _veths(pod: CachedPod, devices: Devices) -> Iterator[Device]:
    """The pod's interfaces on the host that are a veth: neither the bridge nor an ifb."""
    for name in pod.host_ifnames:
        device = devices.by_name(name)
        if device and device.kind == "veth":
            yield device


def _interface(pod: CachedPod, veth: Device, end: FarEnd) -> PodInterface:
    return PodInterface(
        container_id=pod.container_id,
        ifname=pod.ifname,
        netns=pod.netns,
        host_ifname=veth.name,
        mac=end.mac,
        addresses=tuple(str(address) for address in pod.addresses if address.version == 4),
        name=pod.name,
        network=pod.network,
    )


def _entries(cache: Path) -> Iterator[Json]:
    results = cache / "results"
    for file in results.iterdir() if results.is_dir() else ():
        if entry := _entry(file):
            yield entry


def _entry(file: Path) -> Json | None:
    """What libcni wrote to a file. None: it is another kind of file, or half written."""
    try:
        # Another kind of file could block.
        entry = parse_json(file.read_bytes()) if file.is_file() else None
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None


def _chain(entry: Json) -> list[str]:
    """The types of the plugins in the entry's chain."""
    try:
        config = parse_json(base64.b64decode(entry["config"]))
        return [str(plugin["type"]) for plugin in config.get("plugins") or [config]]
    except _MALFORMED:
        return []


def _pod(entry: Json) -> CachedPod:
    """An entry of the kind cniCacheV1 (containernetworking/cni, libcni/api.go, cachedInfo).

    ConfigError: its names do not follow libcni's rules, and must not become file names.
    """
    named = {"container_id": entry["containerId"], "ifname": entry["ifName"]}
    result, (container_id, ifname) = entry["result"], parse_key(named)
    if not NETWORK_NAME.fullmatch(network := str(entry["networkName"])):
        raise ConfigError(f"{network!r} is no name of a network")
    interfaces = result.get("interfaces") or []
    own = [i for i, known in enumerate(interfaces) if _is_own(known, ifname)]
    macs = [str(interfaces[i].get("mac") or "").lower() for i in own]
    return CachedPod(
        container_id=container_id,
        ifname=ifname,
        network=network,
        netns=_printable(entry.get("netns")),
        name=_pod_name(entry.get("cniArgs") or []),
        mac=macs[0] if macs else "",
        addresses=tuple(
            ip_interface(ip["address"]).ip
            for ip in result.get("ips") or []
            if ip.get("interface") in (None, *own)
        ),
        host_ifnames=tuple(
            i["name"] for i in interfaces if not i.get("sandbox") and is_ifname(i["name"])
        ),
    )


def _is_own(interface: Json, ifname: str) -> bool:
    return bool(interface.get("sandbox")) and interface["name"] == ifname


def _pod_name(arguments: list[list[str]]) -> str:
    """namespace/name of CNI_ARGS, which the cache holds as pairs."""
    said = {pair[0]: pair[1] for pair in arguments}
    names = (said.get("K8S_POD_NAMESPACE"), said.get("K8S_POD_NAME"))
    return "/".join(filter(None, map(_printable, names)))


def _printable(text: object) -> str:
    """`text`, or empty if it can't be shown and encoded."""
    return text if isinstance(text, str) and text.isprintable() else ""


def _holds(pod: CachedPod, leases: Path, address: Address) -> bool:
    """Whether host-local gave `address` to the container of `pod`."""
    if not leases.is_dir():
        return True
    try:
        lease = (leases / str(address)).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return False
    return lease[:1] == [pod.container_id] and lease[1:2] in ([], [pod.ifname])
