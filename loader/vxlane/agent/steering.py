# SPDX-License-Identifier: Apache-2.0
"""Applies what the cluster wants of this node's bypass, and reports the node to the cluster.

The wish is kept on disk: an agent that starts while the API server is down must not bypass a node
that was switched off. As long as no wish is known, packets are left to the kernel path.
"""

from __future__ import annotations

import logging
from pathlib import Path

from vxlane.agent.agent import Agent
from vxlane.agent.server.report import Reports
from vxlane.errors import ConfigError
from vxlane.pods.interfaces import PodInterface
from vxlane.sources.steering import NOTHING, Cluster, Wish, parse_wish
from vxlane.util import files

log = logging.getLogger(__name__)

FILE = "wish"


class Steering:
    """Stands between an agent and its cluster. Decides which pods are left to the kernel path."""

    def __init__(self, agent: Agent, cluster: Cluster) -> None:
        self._agent = agent
        self._cluster = cluster
        self._path = agent.config.state / FILE
        self._reports = Reports(agent)
        agent.pods.admission = self
        agent.steer(cluster.wish() or _saved(self._path) or NOTHING)

    @property
    def changed(self) -> int:
        """See `Cluster`."""
        return self._cluster.changed

    def on_event(self) -> None:
        """The wish may have changed, or the annotations of pods may be known now."""
        self._cluster.on_event()
        wish, before = self._cluster.wish(), self._agent.wish
        if wish is not None and (wish != before or not self._path.exists()):
            self._save(wish)
        if wish is None or wish == before:
            self._agent.reconsider_pods()
        else:
            log.info("the bypass of this node: %s (before: %s)", wish, before)
            self._agent.steer(wish)

    def tell(self) -> None:
        """Report this node's state to the cluster."""
        self._cluster.tell(self._reports.report())

    def reason(self, pod: PodInterface) -> str | None:
        """See `Admission`."""
        wish = self._agent.wish
        if not wish.is_on:
            return "the bypass of this node is switched off"
        if not wish.includes(pod.name or pod.container_id):
            return f"it is not among the {wish} of this node's pods that are to be bypassed"
        return self._cluster.opt_out(pod.name)

    def forget(self, pod: PodInterface) -> None:
        """See `Admission`."""
        self._cluster.forget(pod.name)

    def _save(self, wish: Wish) -> None:
        try:
            files.replace(self._path, f"{wish}\n")
        except OSError as error:
            log.warning("write %s: %s; make room", self._path, error.strerror)


def _saved(path: Path) -> Wish | None:
    """The wish that an earlier agent knew of."""
    try:
        return parse_wish(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ConfigError):
        return None
