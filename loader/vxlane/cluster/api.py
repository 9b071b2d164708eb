# SPDX-License-Identifier: Apache-2.0
"""The calls of the Kubernetes API that a person's commands make, as paths and bytes.

With the person's rights, which are other than an agent's: see `sources.kubernetes.api` for those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from vxlane.errors import ConfigError
from vxlane.sources.follow import DEFAULT_TIMING
from vxlane.sources.http import HttpError
from vxlane.sources.kubernetes.access import Access
from vxlane.sources.kubernetes.api import NODES, NodesApi
from vxlane.sources.kubernetes.source import client_for

Json = dict[str, Any]

_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_MANAGER = "vxlane"
"""Who owns the fields that server-side apply writes."""

_PLURALS = {
    "ServiceAccount": "api/v1 serviceaccounts",
    "ConfigMap": "api/v1 configmaps",
    "DaemonSet": "apis/apps/v1 daemonsets",
    "ClusterRole": "apis/rbac.authorization.k8s.io/v1 clusterroles",
    "ClusterRoleBinding": "apis/rbac.authorization.k8s.io/v1 clusterrolebindings",
}
"""The kinds of our manifests; the place of each in the API."""


class ClusterApi:
    """Reads nodes and pods; annotates nodes; applies and deletes objects."""

    def __init__(self, access: Access) -> None:
        self.server = access.server
        self._client = client_for(access, DEFAULT_TIMING)
        self._nodes = NodesApi(self._client, silence=DEFAULT_TIMING.silence)

    def nodes(self) -> list[Mapping[str, Any]]:
        """All Node objects as they are now."""
        return [value for key, value in self._nodes.pages(version="") if key == "items"]

    def node(self, name: str) -> Mapping[str, Any]:
        """The Node object `name`."""
        return self._nodes.read(name)

    def annotate(self, node: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a node; None takes one away."""
        body = json.dumps({"metadata": {"annotations": annotations}}).encode()
        self._client.call("PATCH", f"{NODES}/{quote(node)}", body=body, content_type=_MERGE)

    def pods_of(self, node: str) -> Iterator[Mapping[str, Any]]:
        """The Pod objects of one node."""
        query = urlencode({"fieldSelector": f"spec.nodeName={node}"})
        yield from self._client.call("GET", f"/api/v1/pods?{query}").get("items") or ()

    def pods_of_set(self, daemons: Json) -> list[Json]:
        """The Pod objects that a DaemonSet's labels choose."""
        chosen = daemons["spec"]["selector"]["matchLabels"]
        labels = ",".join(f"{key}={value}" for key, value in chosen.items())
        query = urlencode({"labelSelector": labels})
        namespace = quote(daemons["metadata"]["namespace"])
        found = self._client.call("GET", f"/api/v1/namespaces/{namespace}/pods?{query}")
        return found.get("items") or []

    def read(self, thing: Json) -> Json | None:
        """The object of this kind and name as the cluster has it; None: it has none."""
        try:
            found: Json = self._client.call("GET", path_of(thing))
        except HttpError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return found

    def apply(self, thing: Json) -> None:
        """Make an object as `thing` says (server-side apply), whoever wrote it before."""
        query = urlencode({"fieldManager": _MANAGER, "force": "true"})
        # JSON is YAML.
        body = json.dumps(thing).encode()
        path = f"{path_of(thing)}?{query}"
        self._client.call("PATCH", path, body=body, content_type=_APPLY)

    def delete(self, thing: Json) -> bool:
        """Delete an object; whether there was one."""
        try:
            self._client.call("DELETE", path_of(thing))
        except HttpError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True


def path_of(thing: Mapping[str, Any]) -> str:
    """Where an object is in the API."""
    try:
        group, plural = _PLURALS[thing["kind"]].split()
    except KeyError:
        raise ConfigError(f"objects of kind {thing.get('kind')!r} are not applied") from None
    metadata = thing["metadata"]
    within = f"namespaces/{quote(metadata['namespace'])}/" if "namespace" in metadata else ""
    return f"/{group}/{within}{plural}/{quote(metadata['name'])}"
