# SPDX-License-Identifier: Apache-2.0
"""Keeps known pod interfaces on disk for the next agent.

Owns `<state>/pods/`, with one JSON file for each. `pods` finds out whether a file is still true.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeGuard

from vxlane.errors import ConfigError
from vxlane.sources.model import parse_mac
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

# libcni's rules for these names; they also make them safe as a file's name.
_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_IFNAME = re.compile(r"[^/:\s]{1,15}")
NETWORK_NAME = _CONTAINER_ID

_DAMAGED = (OSError, ValueError, AttributeError, KeyError, ConfigError)

Key = tuple[str, str]
"""Container ID and interface name in the pod."""


@dataclass(frozen=True, slots=True)
class PodInterface:
    """One interface of one pod."""

    container_id: str
    ifname: str
    netns: str
    host_ifname: str
    mac: str
    """The MAC of the pod's end of the veth."""
    addresses: tuple[str, ...]
    """IPv4 only. Packets of IPv6 take the kernel path."""
    name: str = ""
    """namespace/pod, if the runtime gave it."""
    network: str = ""
    """The CNI network. The runtime collects garbage network by network."""
    host_mac: str = ""
    """The MAC of the host's end when the pod was added. Names and ifindexes are used again."""

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.container_id, self.ifname


def parse_key(request: Mapping[str, Any]) -> Key:
    """The interface that a request is about, or ConfigError naming the field."""
    container_id, ifname = request.get("container_id"), request.get("ifname")
    if not isinstance(container_id, str) or not _CONTAINER_ID.fullmatch(container_id):
        raise ConfigError(f"container_id {container_id!r} is not a container's ID")
    if not is_ifname(ifname):
        raise ConfigError(f"ifname {ifname!r} is not an interface's name")
    return container_id, ifname


def is_ifname(name: object) -> TypeGuard[str]:
    """Whether a device can have this name, and the name can be shown and encoded."""
    return isinstance(name, str) and bool(_IFNAME.fullmatch(name)) and name.isprintable()


def parse_interface(request: Mapping[str, Any]) -> PodInterface:
    """The interface that a request describes, or ConfigError naming the field."""
    container_id, ifname = parse_key(request)
    host_ifname, addresses = request.get("host_ifname"), request.get("addresses")
    if not is_ifname(host_ifname):
        raise ConfigError(f"host_ifname {host_ifname!r} is not an interface's name")
    if not isinstance(addresses, list):
        raise ConfigError("addresses must be a list")
    return PodInterface(
        container_id=container_id,
        ifname=ifname,
        netns=str(request.get("netns") or ""),
        host_ifname=host_ifname,
        mac=parse_mac(str(request.get("mac") or "")),
        addresses=tuple(str(a) for a in addresses if _is_ipv4(a)),
        name=str(request.get("name") or ""),
        network=str(request.get("network") or ""),
    )


def _is_ipv4(text: object) -> bool:
    """Whether `text` is IPv4; ConfigError if it is no address at all."""
    if isinstance(text, str) and ":" in text:
        return False
    try:
        IPv4Address(str(text))
    except ValueError:
        raise ConfigError(f"address {text!r} is not an IP address") from None
    return True


def noted(state: Path) -> Iterator[PodInterface]:
    """What an agent has noted in its state directory. What can't be read is for it to remove."""
    for path in sorted((state / "pods").glob("*.json")):
        with contextlib.suppress(*_DAMAGED):
            yield _read(path)


def _read(path: Path) -> PodInterface:
    """What `PodStore.save` wrote; one of `_DAMAGED` if it is anything else."""
    document = parse_json(path.read_bytes())
    return dataclasses.replace(parse_interface(document), host_mac=str(document["host_mac"]))


class PodStore:
    """Reads and writes the files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> dict[Key, PodInterface]:
        """All interfaces, oldest first. A file that can't be read is logged and removed."""
        found = {}
        files = self._directory.glob("*.json")
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
            try:
                interface = _read(path)
            except _DAMAGED as error:
                log.warning("remove %s: not what an agent wrote (%s)", path, error)
                with contextlib.suppress(OSError):  # A directory, or a disk that takes no write.
                    path.unlink()
            else:
                found[interface.key] = interface
        return found

    def save(self, interface: PodInterface) -> None:
        """Write one file. A killed agent leaves the old content or the new one.

        A failure, as of a full disk, is logged: the pod works, but the next agent won't know it.
        """
        path = self._path(interface.key)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(path, json.dumps(dataclasses.asdict(interface)))
        except OSError as error:
            advice = "the next agent will not know this pod; make room"
            log.warning("write %s: %s; %s", path, error.strerror, advice)

    def remove(self, key: Key) -> None:
        """Remove one, if it is there."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            log.warning("remove %s: %s", self._path(key), error.strerror)

    def _path(self, key: Key) -> Path:
        return self._directory / f"{key[0]},{key[1]}.json"  # no id has a comma
