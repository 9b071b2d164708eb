# SPDX-License-Identifier: Apache-2.0
"""The last set of nodes, on disk: what an agent goes by that starts while its source is down."""

from __future__ import annotations

import json
import logging
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from vxlane.sources.model import Backend, Node
from vxlane.sources.snapshot import NOTHING_READ, Snapshot
from vxlane.util import files

log = logging.getLogger(__name__)


class NodeCache:
    """Owns `<state>/nodes.json`."""

    def __init__(self, state: Path) -> None:
        self._path = state / "nodes.json"
        self._saved: tuple[Node | None, tuple[Node, ...]] = (None, ())

    def load(self) -> Snapshot:
        """What was saved last; nothing where nothing (readable) was."""
        try:
            document = json.loads(self._path.read_text())
            network = document["network"]
            return Snapshot(
                own=_node(document["own"]),
                peers=tuple(_node(item) for item in document["peers"]),
                network=IPv4Network(network) if network else None,
            )
        except FileNotFoundError:
            return NOTHING_READ
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is left alone: not what an agent wrote (%s)", self._path, error)
            return NOTHING_READ

    def save(self, snapshot: Snapshot) -> None:
        """Write it, unless nothing changed; a killed agent leaves the old file or the new one."""
        current = snapshot.own, snapshot.peers
        if snapshot.own is None or (current[0] is self._saved[0] and current[1] is self._saved[1]):
            return
        document = {
            "network": str(snapshot.network) if snapshot.network else None,
            "own": _fields(snapshot.own),
            "peers": [_fields(node) for node in snapshot.peers],
        }
        files.replace(self._path, json.dumps(document))
        self._saved = current


def _fields(node: Node) -> list[str]:
    return [
        node.name,
        str(node.address),
        str(node.pod_cidr),
        node.vtep_mac,
        node.backend.value,
    ]


def _node(fields: list[Any]) -> Node:
    name, address, cidr, mac, backend = map(str, fields)
    return Node(name, IPv4Address(address), IPv4Network(cidr), mac, Backend(backend))
