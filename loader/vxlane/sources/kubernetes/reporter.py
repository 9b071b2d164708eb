# SPDX-License-Identifier: Apache-2.0
"""Tells the cluster how this node's agent is: an annotation of its Node object, seldom written.

Why an annotation, and no scrape of each node's metrics? Agents have the right already, since
flannel's role may patch nodes/status, and whoever looks needs to list nodes and nothing else: no
way to each node's port, no rights on proxies. The price is that every write of a Node goes to all
who watch nodes, which is every agent. So figures go every five minutes, as kubelet writes its own
status, and only changed facts go soon.
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
    """How often a node is written at most; seconds."""

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
        """From now on this is the report; it is written when the pace allows."""
        is_news = self._latest is None or self._latest.facts != report.facts
        self._latest = report
        if is_news:
            self._reconciler.request()

    def close(self) -> None:
        """Write no more; may be called twice."""
        self._reconciler.close()

    def _write(self) -> float | None:
        """Seconds until the next look."""
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
