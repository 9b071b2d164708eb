# SPDX-License-Identifier: Apache-2.0
"""Reports the state of this node's agent in an annotation of its Node object.

Why an annotation, and not metrics that are scraped from each node? Agents may write it already,
since flannel's role may patch nodes/status. A reader only needs to list nodes: it needs no way to
each node's port, and no rights on proxies. The price is that each write of a Node goes to all
watchers of nodes, which is every agent. So figures are written every five minutes, as often as
kubelet writes its status, and only changed facts are written soon.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

from vxlane.sources.follow import Reconciler, Timing
from vxlane.sources.kubernetes.api import NodesApi, timestamp
from vxlane.sources.steering import REPORT, Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """The shortest time between two writes of a node, in seconds."""

    facts: float = 10.0
    """When a fact has changed."""
    figures: float = 300.0
    """kubelet's nodeStatusReportFrequency."""


DEFAULT_PACE = Pace()


class Reporter:
    """Writes the latest report to node `name`, in a thread of its own."""

    def __init__(self, api: NodesApi, name: str, *, timing: Timing, pace: Pace) -> None:
        self._api = api
        self._name = name
        self._pace = pace
        self._latest: Report | None = None
        self._written: Report | None = None
        self._written_at = -pace.figures
        self._complaint = ""
        self._reconciler = Reconciler("report", self._write, complain=self._complain, timing=timing)

    def start(self) -> None:
        """Begin to write, once there is something to write."""
        self._reconciler.start()

    def tell(self, report: Report) -> None:
        """Replace the report. It is written when the pace allows it."""
        is_news = self._latest is None or self._latest.facts != report.facts
        self._latest = report
        if is_news:
            self._reconciler.request()

    def close(self) -> None:
        """Write no more; may be called twice."""
        self._reconciler.close()

    def _write(self) -> float | None:
        """Write the report if it is due. Returns the seconds until the next attempt."""
        latest = self._latest
        if latest is None:
            return None
        is_news = self._written is None or self._written.facts != latest.facts
        due = self._written_at + (self._pace.facts if is_news else self._pace.figures)
        if (left := due - time.monotonic()) > 0:
            return left
        text = latest.text(timestamp())
        self._api.patch_status(self._name, {"metadata": {"annotations": {REPORT: text}}})
        self._written, self._written_at = latest, time.monotonic()
        # Jitter: agents that a rollout started together must not write together for ever.
        return self._pace.figures * random.uniform(0.9, 1.1)  # noqa: S311 - it is no secret

    def _complain(self, reason: str) -> None:
        if reason and reason != self._complaint:
            log.warning("'vxlane cluster status' does not hear of this node: %s", reason)
        self._complaint = reason
