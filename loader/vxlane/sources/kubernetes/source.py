# SPDX-License-Identifier: Apache-2.0
"""The nodes of a Kubernetes cluster, with flannel's annotations: a `NodeSource`.

Why not one of the Kubernetes clients? They hold the whole objects: 1,000 nodes of 15 kB take 80 to
130 MB more, and the import 25 to 65 MB. None has all that an agent needs which must never miss a
deletion: initial events in the watch, bookmarks, a list that is compared after a 410, a limit on
silence, back-off with jitter. This source needs a few MB for 10,000 nodes.

Two threads: the reflector reads, the publisher writes this node's own annotations. `cluster` is
what the cluster says of the bypass, and has two more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from vxlane.errors import ConfigError
from vxlane.sources.follow import DEFAULT_TIMING, Follower, Timing
from vxlane.sources.http import HttpClient
from vxlane.sources.kubernetes.access import Access
from vxlane.sources.kubernetes.annotations import (
    DEFAULT_PREFIX,
    Annotations,
    annotations_of,
    name_of,
)
from vxlane.sources.kubernetes.api import NodesApi
from vxlane.sources.kubernetes.cluster import KubernetesCluster
from vxlane.sources.kubernetes.publisher import Publisher
from vxlane.sources.kubernetes.reflector import Entry, Reflector
from vxlane.sources.model import Announcement, parse_address
from vxlane.sources.snapshot import NOTHING_READ, Snapshot
from vxlane.sources.table import NodeTable

log = logging.getLogger(__name__)


class KubernetesSource:
    """Follows all nodes; publishes node `own_name` once it is announced."""

    def __init__(
        self,
        access: Access,
        own_name: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._own_name = own_name
        self._annotations = Annotations(prefix)
        self._client = client_for(access, timing)
        self._table = NodeTable(own_name)
        api = NodesApi(self._client, silence=timing.silence)
        self._publisher = Publisher(
            api,
            own_name,
            annotations=self._annotations,
            complain=self._table.complain,
            timing=timing,
        )
        self._follower = Follower(
            "nodes",
            Reflector(api, self._table, self._slim).round,
            failed=self._table.fail,
            timing=timing,
        )
        self.changed = self._table.changed
        self.cluster = KubernetesCluster(api, own_name, timing=timing)
        self._choice: str | None = None
        self._chosen: IPv4Address | None = None

    def start(self, served: Snapshot = NOTHING_READ) -> None:
        """See `NodeSource`."""
        self._table.served = served
        self._follower.start()
        self.cluster.start()
        self._publisher.start()

    def on_event(self) -> bool:
        """See `NodeSource`."""
        return self._table.on_event()

    def nodes(self) -> Snapshot:
        """See `NodeSource`."""
        return self._table.snapshot()

    def announce(self, own: Announcement) -> None:
        """Keep this node's annotations so; an existing public-ip-overwrite wins over `address`."""
        self._publisher.announce(own)

    def ready(self) -> None:
        """Say that this node's network is up (condition NetworkUnavailable=False)."""
        self._publisher.ready()

    def close(self) -> None:
        """See `NodeSource`."""
        self.changed = -1
        self._client.close()
        self._follower.close()
        self._publisher.close()
        self.cluster.close()
        self._table.close()

    def chosen_address(self) -> IPv4Address | None:
        """The underlay address in this node's annotation node-public-ip, if it has one."""
        return self._chosen

    def _slim(self, node: Mapping[str, Any]) -> Entry:
        if name_of(node) == self._own_name:
            found = annotations_of(node)
            self._publisher.seen(node)
            self.cluster.seen(found)
            choice = found.get(self._annotations.address_choice)
            if choice != self._choice:  # so that each is told once
                self._choice, self._chosen = choice, _address(choice)
        return self._annotations.entry(node, self._own_name)


def own_node_name(
    access: Access, environ: Mapping[str, str], *, timing: Timing = DEFAULT_TIMING
) -> str:
    """The name of the node that this process runs on, found as flannel does: NODE_NAME, or the
    node of the pod POD_NAMESPACE/POD_NAME. SourceError: the API server can't tell us now.
    """
    if name := environ.get("NODE_NAME"):
        return name
    pod, namespace = environ.get("POD_NAME"), environ.get("POD_NAMESPACE")
    if not pod or not namespace:
        raise ConfigError(
            "this node's name is not known; set NODE_NAME, or POD_NAME and POD_NAMESPACE"
        )
    client = client_for(access, timing)
    return NodesApi(client, silence=timing.silence).node_of_pod(namespace, pod)


def client_for(access: Access, timing: Timing) -> HttpClient:
    """An HTTP client for the server of `access`, with its identity."""
    return HttpClient(
        [access.server], tls=access.tls, headers=access.headers, timeout=timing.timeout
    )


def _address(text: str | None) -> IPv4Address | None:
    try:
        return parse_address(text) if text else None
    except ConfigError as error:
        log.warning("annotation node-public-ip is ignored: %s", error)
        return None
