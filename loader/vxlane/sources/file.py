# SPDX-License-Identifier: Apache-2.0
"""The nodes of a YAML or JSON file that people (or their tools) write.

    network: 10.42.0.0/16
    nodes:
      - {name: node1, address: 192.168.77.1, podCIDR: 10.42.1.0/24}
      - {name: node2, address: 192.168.77.2, podCIDR: 10.42.2.0/24, vtepMAC: "0e:29:66:26:fa:6d"}

Owns reading and following it. Touches no kernel state.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import yaml

from vxlane.errors import ConfigError, one_line
from vxlane.sources.model import (
    Announcement,
    Backend,
    Node,
    Problem,
    derived_mac,
    parse_address,
    parse_cidr,
    parse_mac,
)
from vxlane.sources.snapshot import NOTHING_READ, Snapshot, agree
from vxlane.sources.steering import NoCluster
from vxlane.util.inotify import DirectoryWatch
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

_DEEPEST = 100
_KEYS = frozenset({"name", "address", "podCIDR", "vtepMAC"})


class FileSource:
    """Follows one file. While the file can't be used, the last good nodes are served."""

    def __init__(self, path: Path, own_name: str, backend: Backend = Backend.VXLAN) -> None:
        self.changed = -1
        self._watch: DirectoryWatch | None = None
        self.cluster = NoCluster()
        self._path = path
        self._own_name = own_name
        self._backend = backend
        self._digest = b""
        """The digest of the content that was read last. Empty: the file can't be read."""
        self._last = NOTHING_READ
        self._served = NOTHING_READ

    def start(self, served: Snapshot = NOTHING_READ) -> None:
        """Watch the file's directory: an editor's rename gives the name a new inode."""
        self._served = served
        self._watch = _watch(self._path.parent)
        self.changed = self._watch.fileno()

    def on_event(self) -> bool:
        """See `NodeSource`. False for events of the directory's other files: the agent may write
        its status there, and one reconcile must not cause the next.
        """
        assert self._watch
        try:
            self._watch.read()
            return _digest(self._path.read_bytes()) != self._digest
        except OSError:
            return bool(self._digest)

    def nodes(self) -> Snapshot:
        """What the file says now; see `NodeSource`."""
        try:
            content = self._path.read_bytes()
            digest = _digest(content)
            if digest != self._digest:
                # Kept also for a file that can't be used, so that its errors are reported once.
                self._digest = digest
                before, self._last = self._last, self._parse(content)
                if before.error:
                    log.info("%s is read again", self._path)
            if not self._last.error:
                self._last = dataclasses.replace(self._last, read_at=time.monotonic())
        except OSError as error:
            self._digest = b""
            self._fail(f"{self._path}: {error.strerror}; write the list of nodes there")
        except ConfigError as error:
            self._fail(f"{self._path}: {error}")
        return self._last

    def announce(self, own: Announcement) -> None:
        """Does nothing: people write the file."""

    def ready(self) -> None:
        """Does nothing: a file has no reader to tell."""

    def chosen_address(self) -> IPv4Address | None:
        """None: the file does not say."""
        return None

    def close(self) -> None:
        """See `NodeSource`."""
        if self._watch:
            self._watch.close()
            self._watch, self.changed = None, -1

    def _fail(self, error: str) -> None:
        if error != self._last.error:
            has_nodes = self._last.own or self._served.own
            log.warning("%s%s", error, "; the last good nodes stay" if has_nodes else "")
        self._last = dataclasses.replace(self._last, error=error)

    def _parse(self, content: bytes) -> Snapshot:
        document = _load(content)
        nodes, problems = parse_entries(document["nodes"], self._backend)
        snapshot = agree(
            nodes,
            self._own_name,
            problems=problems,
            network=_network(document),
            previous=self._last if self._last.own else self._served,
        )
        if snapshot.own is None:
            raise ConfigError("; ".join(f"node {p.node!r}: {p.reason}" for p in snapshot.problems))
        return snapshot


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def parse_entries(entries: list[Any], backend: Backend) -> tuple[list[Node], list[Problem]]:
    """The nodes of `entries`, all of one backend, and a Problem for each entry with an error."""
    nodes, problems = [], []
    for number, entry in enumerate(entries, start=1):
        name = str(entry.get("name") or "") if isinstance(entry, dict) else ""
        # JSON can tell half a character ("\\ud800"), which no file or log takes.
        name = name if name.isprintable() else ""
        try:
            nodes.append(_node(name, entry, backend))
        except ConfigError as error:
            problems.append(Problem(name or f"entry {number}", str(error)))
    return nodes, problems


def _node(name: str, entry: object, backend: Backend) -> Node:
    if not isinstance(entry, dict):
        raise ConfigError("is not a mapping of name, address and podCIDR")
    if unknown := entry.keys() - _KEYS:
        raise ConfigError(f"unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}")
    if not name:
        raise ConfigError("has no name, or one that can't be printed")
    mac = entry.get("vtepMAC")
    return Node(
        name=name,
        address=parse_address(_text(entry, "address")),
        pod_cidr=parse_cidr(_text(entry, "podCIDR")),
        vtep_mac=derived_mac(name) if mac is None else parse_mac(_text(entry, "vtepMAC")),
        backend=backend,
    )


def _text(entry: Mapping[str, object], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise ConfigError(f"{key} is missing" if value is None else f"{key} must be a string")
    return value


def _network(document: Mapping[str, object]) -> IPv4Network | None:
    if document.get("network") is None:
        return None
    text = _text(document, "network")
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise ConfigError(f"network {text!r} is not an IPv4 network: {error}") from None


def _load(content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
        document = parse_json(text) if text.lstrip()[:1] == "{" else _parse_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"is neither YAML nor JSON: {one_line(error)}") from None
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise ConfigError("has no list 'nodes' at its top level")
    return document


def _parse_yaml(text: str) -> Any:
    # The base loader leaves every scalar as text. YAML 1.1 would read the unquoted MAC
    # 10:20:30:40:50:12 as one number in base 60, and a node named "on" as a boolean.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:  # The loader recurses in C: 50,000 brackets would end the process.
            raise ValueError("it is nested too deeply")
    return yaml.load(text, loader)  # noqa: S506


def _watch(directory: Path) -> DirectoryWatch:
    if not directory.is_dir():
        raise ConfigError(f"{directory} can't be watched: no such directory; make the directory")
    try:
        return DirectoryWatch([directory])
    except OSError as error:
        advice = "give another file of nodes, or raise fs.inotify's limits"
        raise ConfigError(f"{directory} can't be watched: {error.strerror}; {advice}") from None
