# SPDX-License-Identifier: Apache-2.0
"""flannel's subnet manager for Kubernetes, as pkg/subnet/kube of v0.28 is written."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from leases import Event, Lease, LeaseWatcher, NetworkConfig, NotNowError, parse_config

_PREFIX = "flannel.alpha.coreos.com/"
_COMPARED = ("backend-data", "backend-type", "public-ip")
"""A change of anything else of a node is no event (handleUpdateLeaseEvent)."""

Node = dict[str, Any]


class KubeManager:
    """The Kubernetes side of a daemon (`kubeSubnetManager`)."""

    def __init__(self, url: str, node_name: str, net_config: Path) -> None:
        self._nodes = f"{url}/api/v1/nodes"
        self._name = node_name
        self._net_config = net_config

    def config(self) -> NetworkConfig:
        """See `Manager`; from a file, which is not checked beyond being read."""
        try:
            return parse_config(json.loads(self._net_config.read_text()))
        except (OSError, ValueError, KeyError) as error:
            raise NotNowError(str(error)) from error

    def stored_mac(self) -> str:
        """See `Manager`; cut out of the annotation, which is not parsed (GetStoredMacAddresses)."""
        pieces = _said(self._own()).get("backend-data", "").rstrip('"}').split(':"')
        return pieces[1] if len(pieces) == 2 else ""

    def acquire(self, attrs: dict[str, Any], previous: IPv4Network | None) -> Lease:
        """See `Manager`: the node's podCIDR; its annotations are patched where they differ."""
        del previous
        node = self._own()
        if "podCIDR" not in node["spec"]:
            raise NotNowError(f"node {self._name!r} pod cidr not assigned")
        lease = Lease(IPv4Network(node["spec"]["podCIDR"]), attrs)
        data = json.dumps(attrs.get("BackendData"), separators=(",", ":"))
        wanted = {
            "backend-data": data,
            "backend-type": attrs["BackendType"],
            "kube-subnet-manager": "true",
            "public-ip": attrs["PublicIP"],
        }
        if _said(node) | wanted != _said(node):
            annotations = {_PREFIX + key: value for key, value in wanted.items()}
            self._patch({"metadata": {"annotations": annotations}})
        condition = {"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp"}
        self._patch({"status": {"conditions": [condition]}})
        return lease

    def watch(self, own: Lease, tell: Callable[[Event], None]) -> str:
        """See `Manager`; a node that is deleted revokes nothing."""
        watcher = LeaseWatcher(own.subnet)
        known: dict[str, Node] = {}
        while True:
            try:
                for before, after in self._changes(known):
                    for kind, lease in _events(before, after):
                        for event in watcher.update(kind, lease):
                            tell(event)
            except (OSError, ValueError):
                time.sleep(1)

    def _changes(self, known: dict[str, Node]) -> Iterator[tuple[Node | None, Node | None]]:
        """Each node before and after a change: of a list against `known`, then of a watch."""
        answer = json.load(urllib.request.urlopen(self._nodes, timeout=10))
        listed = {node["metadata"]["name"]: node for node in answer["items"]}
        for name in known.keys() | listed.keys():
            yield known.get(name), listed.get(name)
        known.clear()
        known.update(listed)
        version = answer["metadata"]["resourceVersion"]
        query = f"watch=1&timeoutSeconds=300&allowWatchBookmarks=true&resourceVersion={version}"
        for line in urllib.request.urlopen(f"{self._nodes}?{query}"):
            event = json.loads(line)
            name = event["object"]["metadata"].get("name")
            if event["type"] in {"ADDED", "MODIFIED"}:
                yield known.get(name), event["object"]
                known[name] = event["object"]
            elif event["type"] == "DELETED":
                yield known.pop(name, None), None

    def _own(self) -> Node:
        try:
            node: Node = json.load(urllib.request.urlopen(f"{self._nodes}/{self._name}"))
        except OSError as error:
            raise NotNowError(str(error)) from error
        return node

    def _patch(self, change: dict[str, Any]) -> None:
        url, body = f"{self._nodes}/{self._name}/status", json.dumps(change).encode()
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        request = urllib.request.Request(url, body, headers, method="PATCH")
        urllib.request.urlopen(request, timeout=30).close()


def _events(before: Node | None, after: Node | None) -> Iterator[Event]:
    """What the informer's handlers make of a change."""
    if after is None:
        if before is not None and _said(before).get("kube-subnet-manager") == "true":
            yield "removed", _lease(before)
        return
    said, was = _said(after), _said(before or {})
    if said.get("kube-subnet-manager") == "true" and any(
        said.get(key) != was.get(key) for key in _COMPARED
    ):
        yield "added", _lease(after)


def _lease(node: Node) -> Lease:
    said = _said(node)
    data = json.loads(said.get("backend-data", "null"))
    attrs = {"PublicIP": said.get("public-ip"), "BackendType": said.get("backend-type")}
    return Lease(IPv4Network(node["spec"]["podCIDR"]), {**attrs, "BackendData": data})


def _said(node: Node) -> dict[str, str]:
    """Flannel's annotations, without their prefix."""
    found = node.get("metadata", {}).get("annotations", {})
    return {key.removeprefix(_PREFIX): it for key, it in found.items() if key.startswith(_PREFIX)}
