# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the Kubernetes API server: nodes over real HTTP, with its rules and its faults.

Faithful where a client can go wrong: resourceVersions and a history that can be forgotten, pages
with continue tokens, chunked watches with one JSON value a line, initial events with their closing
bookmark, bookmarks, 410 as an answer and as an ERROR event, strategic merge on nodes/status.
Run by hand (python tests/sources/apiserver.py --nodes 5000) it serves until it is ended.
"""

from __future__ import annotations

import argparse
import json
import ssl
import threading
import uuid
from collections import deque
from typing import Any

from apihttp import Fault, Server, encoded

PREFIX = "flannel.alpha.coreos.com"


def make_node(number: int, *, size: int = 0, **annotations: str) -> dict[str, Any]:
    """Node `number` as flanneld leaves it, with about `size` bytes as kubelet's status has."""
    third, fourth = divmod(number, 256)
    cidr = f"10.{64 + third}.{fourth}.0/24"
    mac = f"0e:00:00:00:{third:02x}:{fourth:02x}"
    node: dict[str, Any] = {
        "metadata": {
            "name": f"node-{number:05}",
            "uid": str(uuid.uuid4()),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {
                f"{PREFIX}/backend-data": json.dumps({"VNI": 1, "VtepMAC": mac}),
                f"{PREFIX}/backend-type": "vxlan",
                f"{PREFIX}/kube-subnet-manager": "true",
                f"{PREFIX}/public-ip": f"172.16.{third}.{fourth}",
                "node.alpha.kubernetes.io/ttl": "0",
            }
            | {f"{PREFIX}/{key.replace('_', '-')}": value for key, value in annotations.items()},
        },
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "images": []},
    }
    image = {
        "names": [f"registry.example/team/app@sha256:{'0123456789abcdef' * 4}"],
        "sizeBytes": 1,
    }
    missing = max(0, size - len(json.dumps(node)))
    node["status"]["images"] = [image] * (missing // (len(json.dumps(image)) + 2))
    return node


class ApiServer:
    """Nodes, their history, and a server that tells of them; `watch_list` False is one before 1.32.

    `patches` holds every PATCH as (path, content type, body), `requests` every path asked for.
    """

    def __init__(
        self,
        *,
        watch_list: bool = True,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        bookmark_every: float = 0.2,
        host: str = "127.0.0.1",
    ) -> None:
        self.watch_list = watch_list
        self.token = token
        self.bookmark_every = bookmark_every
        self.faults: deque[Fault] = deque()
        self.requests: list[str] = []
        self.patches: list[tuple[str, str, bytes]] = []
        self.pods: dict[str, str] = {}
        self.objects: dict[str, Any] = {}
        """Other objects by their path; a number is the status of a refusal."""
        self.moved = threading.Condition()
        self.nodes: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, str, bytes]] = []
        self.version = 1000
        self.oldest = 1000
        self._tls = tls
        self._host = host
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it is, also while it is down."""
        return f"http{'s' if self._tls else ''}://{self._host}:{self._port}"

    def up(self) -> ApiServer:
        """Serve; again on the same port after `down`."""
        self._server = Server(self, (self._host, self._port), self._tls)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def down(self) -> None:
        """Close the door and cut every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_all()

    def put(self, *nodes: dict[str, Any]) -> None:
        """Add or change nodes."""
        with self.moved:
            for node in nodes:
                self.version += 1
                node["metadata"]["resourceVersion"] = str(self.version)
                node["metadata"].setdefault("uid", str(uuid.uuid4()))
                name = node["metadata"]["name"]
                kind = "MODIFIED" if name in self.nodes else "ADDED"
                self.nodes[name] = node
                self.history.append((self.version, kind, encoded(node)))
            self.moved.notify_all()

    def delete(self, name: str) -> None:
        """Take a node out of the cluster."""
        with self.moved:
            self.version += 1
            node = self.nodes.pop(name)
            node["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, "DELETED", encoded(node)))
            self.moved.notify_all()

    def forget(self) -> None:
        """Compact: no watch can start before now any more."""
        with self.moved:
            self.history.clear()
            self.oldest = self.version

    def store(self, path: str, thing: dict[str, Any]) -> dict[str, Any]:
        """Keep an object that was applied."""
        self.objects[path] = thing
        return thing

    def pods_on(self, node: str) -> list[dict[str, Any]]:  # noqa: ARG002 (there are none)
        """The Pod objects of a node."""
        return []

    def next_fault(self) -> Fault:
        """The fault for this request."""
        return self.faults.popleft() if self.faults else Fault()


def main() -> None:
    """Serve synthetic nodes of 15 kB until ended; prints the address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--no-watch-list", action="store_true")
    options = parser.parse_args()
    api = ApiServer(watch_list=not options.no_watch_list, bookmark_every=60)
    api.put(*(make_node(number, size=15_000) for number in range(options.nodes)))
    api.history.clear()
    print(api.up().url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
