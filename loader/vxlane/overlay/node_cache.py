# SPDX-License-Identifier: Apache-2.0
"""Keeps the last nodes on disk, for an agent that starts while its source is down."""

from __future__ import annotations

import json
import logging
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from vxlane.config import Config
from vxlane.sources.model import Backend, Node
from vxlane.sources.snapshot import NOTHING_READ, Snapshot, remembered
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

FILE = "nodes.json"


class NodeCache:
    """Owns `<state>/nodes.json`.

    Nodes of another source (a Kubernetes annotation prefix, an etcd prefix) or of another network
    belong to another cluster, and with another name this node was another one. They are not used,
    and the next save replaces them.
    """

    def __init__(self, config: Config) -> None:
        self._path = config.state / FILE
        self._origin = config.origin
        self._name = config.node_name
        self._cidr = config.network.cidr
        self._saved: tuple[Node | None, tuple[Node, ...]] = (None, ())

    def load(self) -> Snapshot:
        """The saved nodes, or NOTHING_READ if none can be used."""
        try:
            document = parse_json(self._path.read_bytes())
            origin, network = str(document["source"]), _network(document["network"])
            name = str(document["name"])
            own = _node(document["own"])
            peers = [_node(item) for item in document["peers"]]
        except FileNotFoundError:
            return NOTHING_READ
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is not used: not what this version wrote (%s)", self._path, error)
            return NOTHING_READ
        if origin != self._origin or (self._cidr and network not in (None, self._cidr)):
            log.info("%s is not used: it is of %s, network %s", self._path, origin, network)
            return NOTHING_READ
        if name != self._name:
            log.info("%s is not used: it is of node %s, not %s", self._path, name, self._name)
            return NOTHING_READ
        return remembered(own, peers, network)

    def save(self, snapshot: Snapshot) -> None:
        """Save nodes that were read from a source, if they differ from the saved ones."""
        current = snapshot.own, snapshot.peers
        is_saved = current[0] is self._saved[0] and current[1] is self._saved[1]
        if snapshot.own is None or snapshot.read_at is None or is_saved:
            return
        document = {
            "source": self._origin,
            "name": self._name,
            "network": str(snapshot.network) if snapshot.network else None,
            "own": _fields(snapshot.own),
            "peers": [_fields(node) for node in snapshot.peers],
        }
        files.replace(self._path, json.dumps(document))
        self._saved = current


def saved_nodes(state: Path) -> tuple[Node | None, tuple[Node, ...]]:
    """This node and its peers as an agent has saved them in `state`, from any source.

    None and empty: nothing can be read.
    """
    try:
        document = parse_json((state / FILE).read_bytes())
        return _node(document["own"]), tuple(map(_node, document["peers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None, ()


def saved_peers(state: Path) -> tuple[Node, ...]:
    """The peers of `saved_nodes`."""
    return saved_nodes(state)[1]


def _fields(node: Node) -> list[str]:
    return [
        node.name,
        str(node.address),
        str(node.pod_cidr),
        node.vtep_mac,
        node.backend.value,
    ]


def _network(text: object) -> IPv4Network | None:
    return IPv4Network(str(text)) if text else None


def _node(fields: list[Any]) -> Node:
    name, address, cidr, mac, backend = map(str, fields)
    return Node(name, IPv4Address(address), IPv4Network(cidr), mac, Backend(backend))
