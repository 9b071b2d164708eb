# SPDX-License-Identifier: Apache-2.0
"""The calls of the Kubernetes API that a node's agent makes, as paths and bytes.

Knows the API's conventions (resourceVersion, bookmarks, Status objects). Does not know flannel.
https://kubernetes.io/docs/reference/using-api/api-concepts/ is the source of the rules.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from vxlane.errors import SourceError
from vxlane.sources.http import HttpClient, HttpError
from vxlane.sources.stream import lines, members

NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
PAGE = 500
"""Nodes per request of a list; client-go's size too."""
WATCH_SECONDS = (300, 600)
"""The server ends a watch after a time in this range, so that agents spread over its replicas."""
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
INITIAL_END = "k8s.io/initial-events-end"


class NodesApi:
    """Lists, watches, reads and patches nodes."""

    def __init__(self, client: HttpClient, *, silence: float) -> None:
        self._client = client
        self._silence = silence

    def pages(self, *, version: str) -> Iterator[tuple[str, Any]]:
        """List all nodes: ("items", node) for each, as it arrives, then ("metadata", ListMeta)
        of the last page.

        The list is at least as new as `version`. "0" takes what the server has in memory, "" asks
        for the newest state and costs the server a quorum read.
        """
        query = {"limit": str(PAGE), "resourceVersion": version}
        while True:
            meta: dict[str, Any] = {}
            with self._client.stream("GET", f"{NODES}?{urlencode(query)}") as blocks:
                for key, value in members(blocks, "items"):
                    if key == "items":
                        yield key, value
                    elif key == "metadata":
                        meta = value
            if not meta.get("continue"):
                yield "metadata", meta
                return
            query = {"limit": str(PAGE), "continue": meta["continue"]}

    @contextlib.contextmanager
    def watch(self, version: str) -> Iterator[Iterator[Mapping[str, Any]]]:
        """Inside the with, the server has agreed. Iterate over the events after `version`; for ""
        over all nodes, a bookmark (see `INITIAL_END`), and then the nodes' changes.

        The events end when the server ends the stream. HttpError: the server refused, or sent an
        ERROR event, whose code the error has.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads load
        }
        if version:
            query["resourceVersion"] = version
        else:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        path = f"{NODES}?{urlencode(query)}"
        with self._client.stream("GET", path, silence=self._silence) as blocks:
            yield _checked(lines(blocks))

    def read(self, name: str) -> Mapping[str, Any]:
        """The Node object `name`."""
        node: Mapping[str, Any] = self._client.call("GET", f"{NODES}/{quote(name)}")
        return node

    def patch_status(self, name: str, patch: Mapping[str, Any]) -> None:
        """Merge `patch` into node `name` through its status.

        The subresource takes annotations too, and flannel's RBAC role may write only that.
        """
        body = json.dumps(patch, separators=(",", ":")).encode()
        path = f"{NODES}/{quote(name)}/status"
        self._client.call("PATCH", path, body=body, content_type=STRATEGIC_MERGE)

    def pod(self, namespace: str, name: str) -> Mapping[str, Any]:
        """The Pod object `name`."""
        path = f"{NAMESPACES}/{quote(namespace)}/pods/{quote(name)}"
        pod: Mapping[str, Any] = self._client.call("GET", path)
        return pod

    def namespace(self, name: str) -> Mapping[str, Any]:
        """The Namespace object `name`."""
        namespace: Mapping[str, Any] = self._client.call("GET", f"{NAMESPACES}/{quote(name)}")
        return namespace

    def node_of_pod(self, namespace: str, name: str) -> str:
        """The name of the node that a pod runs on."""
        node = (self.pod(namespace, name).get("spec") or {}).get("nodeName")
        if not node:
            raise SourceError(f"pod {namespace}/{name} names no node; set NODE_NAME")
        return str(node)


def timestamp() -> str:
    """The time now as Kubernetes writes it (RFC 3339)."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _checked(events: Iterator[Any]) -> Iterator[Mapping[str, Any]]:
    for event in events:
        status = event.get("object") if isinstance(event, Mapping) else None
        if not isinstance(status, Mapping):
            raise SourceError(f"the watch of nodes holds what is no event: {str(event)[:60]}")
        if event.get("type") == "ERROR":
            code = int(status.get("code") or http.HTTPStatus.INTERNAL_SERVER_ERROR)
            raise HttpError("the watch of nodes", code, words=str(status.get("message")))
        yield event
