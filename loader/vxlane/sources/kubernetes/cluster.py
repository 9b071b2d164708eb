# SPDX-License-Identifier: Apache-2.0
"""What a Kubernetes cluster wants of the bypass of one node: a `Cluster`."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping

from vxlane.errors import ConfigError
from vxlane.sources.follow import Timing
from vxlane.sources.kubernetes.api import NodesApi
from vxlane.sources.kubernetes.opt_outs import OptOuts
from vxlane.sources.kubernetes.reporter import DEFAULT_PACE, Pace, Reporter
from vxlane.sources.steering import BYPASS, EVERYTHING, Report, Wish, parse_wish

log = logging.getLogger(__name__)


class KubernetesCluster:
    """Owns the eventfd and the two threads."""

    def __init__(
        self, api: NodesApi, own_name: str, *, timing: Timing, pace: Pace = DEFAULT_PACE
    ) -> None:
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._wish: Wish | None = None
        self._refused = ""
        self._opt_outs = OptOuts(api, timing=timing, changed=self._wake)
        self._reporter = Reporter(api, own_name, timing=timing, pace=pace)

    def start(self) -> None:
        """Start both threads."""
        self._opt_outs.start()
        self._reporter.start()

    def close(self) -> None:
        """Close the eventfd, before the threads have ended; may be called twice."""
        with self._lock:
            if self.changed >= 0:
                os.close(self.changed)
                self.changed = -1
        self._opt_outs.close()
        self._reporter.close()

    def seen(self, annotations: Mapping[str, str]) -> None:
        """Take this node's annotations as they are now."""
        try:
            wish = parse_wish(annotations[BYPASS]) if BYPASS in annotations else EVERYTHING
        except ConfigError as error:
            if str(error) != self._refused:
                log.warning("what was wanted of this node before goes on: %s", error)
            self._refused = str(error)
            return
        self._refused = ""
        if wish != self._wish:
            self._wish = wish
            self._wake()

    def on_event(self) -> None:
        """See `Cluster`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.changed)

    def wish(self) -> Wish | None:
        """See `Cluster`."""
        return self._wish

    def opt_out(self, pod: str) -> str | None:
        """See `Cluster`."""
        return self._opt_outs.opt_out(pod)

    def forget(self, pod: str) -> None:
        """See `Cluster`."""
        self._opt_outs.forget(pod)

    def tell(self, report: Report) -> None:
        """See `Cluster`."""
        self._reporter.tell(report)

    def _wake(self) -> None:
        with self._lock:
            if self.changed >= 0:
                os.eventfd_write(self.changed, 1)
