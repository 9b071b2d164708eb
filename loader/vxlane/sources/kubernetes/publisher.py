# SPDX-License-Identifier: Apache-2.0
"""Keeps this node's own annotations as they must be, in a thread of its own.

Annotations that a restarted flanneld or a person removes are written again. A node that is right
costs one read and no write. Each write goes to all nodes, which send the node's packets elsewhere:
two machines with one name must not write in turns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from vxlane.sources.follow import Reconciler, Timing
from vxlane.sources.kubernetes.annotations import Annotations, annotations_of, uid_of
from vxlane.sources.kubernetes.api import NodesApi, timestamp
from vxlane.sources.model import Announcement

log = logging.getLogger(__name__)

_AGAIN = 30.0
"""Seconds until what was changed back is written again."""


class Publisher:
    """Writes what `announce` and `ready` say to node `name`.

    `complain` is called with the reason if it can't, and with "" when it can again.
    """

    def __init__(
        self,
        api: NodesApi,
        name: str,
        *,
        annotations: Annotations,
        complain: Callable[[str], None],
        timing: Timing,
    ) -> None:
        self._api = api
        self._name = name
        self._annotations = annotations
        self._own: Announcement | None = None
        self._is_up = False
        self._told_of = ""
        """UID of the Node object that has the condition from us. A Node that was deleted and made
        again has another UID."""
        self._written: tuple[str, dict[str, str]] | None = None
        """The last annotations, with the UID of the Node object."""
        self._again_at = 0.0
        """When the same may be written again (CLOCK_MONOTONIC)."""
        self._reconciler = Reconciler("publish", self._write, complain=complain, timing=timing)

    def start(self) -> None:
        """Begin to write, once there is something to write."""
        self._reconciler.start()

    def announce(self, own: Announcement) -> None:
        """Keep the annotations so from now on."""
        self._own = own
        self._reconciler.request()

    def ready(self) -> None:
        """Tell the cluster that the network of this node is up: once for each Node object."""
        self._is_up = True
        self._reconciler.request()

    def seen(self, node: Mapping[str, Any]) -> None:
        """Take this node's object as it is now, and wake the thread if it is not right."""
        is_wanting = self._is_up and uid_of(node) != self._told_of
        if self._own is not None:
            is_wanting |= bool(self._annotations.wanted(self._own, annotations_of(node)))
        if is_wanting:
            self._reconciler.request()

    def close(self) -> None:
        """Write no more; may be called twice."""
        self._reconciler.close()

    def _write(self) -> float | None:
        node = self._api.read(self._name)
        if self._is_up and uid_of(node) != self._told_of:
            # Before the annotations, one of which may be refused: pods wait for this one.
            self._api.patch_status(self._name, _network_is_up())
            self._told_of = uid_of(node)
            log.info("node %s: condition NetworkUnavailable=False", self._name)
        return None if self._own is None else self._write_annotations(self._own, node)

    def _write_annotations(self, own: Announcement, node: Mapping[str, Any]) -> float | None:
        """Write what is wanting. Returns the seconds until it may be written again."""
        found = annotations_of(node)
        wanted = self._annotations.wanted(own, found)
        is_repeated = (uid_of(node), wanted) == self._written
        left = self._again_at - time.monotonic() if wanted and is_repeated else 0.0
        if wanted and left <= 0:
            self._api.patch_status(self._name, {"metadata": {"annotations": wanted}})
            self._written = uid_of(node), wanted
            self._again_at = time.monotonic() + _AGAIN
            changes = ", ".join(f"{key}: {found.get(key)} -> {wanted[key]}" for key in wanted)
            log.info("node %s: announced %s", self._name, changes)
            if is_repeated:
                log.warning("node %s: it was changed back; has another its name?", self._name)
        self._annotations.overwrite(found)
        return left if left > 0 else None


def _network_is_up() -> dict[str, object]:
    """The condition that lifts the taint node.kubernetes.io/network-unavailable, in flannel's
    words; conditions are merged by type, so that no other is touched.
    """
    now = timestamp()
    condition = {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }
    return {"status": {"conditions": [condition]}}
