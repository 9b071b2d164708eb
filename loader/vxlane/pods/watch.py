# SPDX-License-Identifier: Apache-2.0
"""Finds pods without the CNI plugin, by following libcni's files.

libcni writes a pod's file after the last plugin of the chain. So programs are never attached while
the chain is at work: on kernels before 6.6 the bandwidth plugin fails on a veth that has programs.
Files that are removed are ignored, because a pod ends with its veth, and the kernel reports that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from vxlane.pods import cni_cache
from vxlane.pods.pods import Pods
from vxlane.util.inotify import DirectoryWatch

log = logging.getLogger(__name__)


class CacheWatch:
    """Adds the pods of some caches (/var/lib/cni), those that are there and those that follow."""

    def __init__(self, caches: Iterable[Path], pods: Pods) -> None:
        self._caches = {cache.absolute() / "results": cache for cache in caches}
        self._pods = pods
        self._watch: DirectoryWatch | None = None

    def start(self) -> int | None:
        """Follow the caches. Returns a descriptor for a selector. None: only `read` finds pods."""
        try:
            self._watch = DirectoryWatch(self._caches)
        except OSError as error:
            advice = "raise fs.inotify.max_user_instances and max_user_watches"
            text = "follow %s: %s; pods that the plugin does not report are seen late; %s"
            log.warning(text, error.filename, error.strerror, advice)
            return None
        return self._watch.fileno()

    def close(self) -> None:
        """Stop following."""
        if self._watch:
            self._watch.close()

    def read(self) -> None:
        """Add every pod of the caches."""
        for cache in self._caches.values():
            self._pods.add_cached(cni_cache.read(cache))

    def on_event(self) -> None:
        """Add the pods of files that were written."""
        if self._watch is None:
            return
        for directory, names in self._watch.read().items():
            cache = self._caches[directory]
            if names is None:
                self._pods.add_cached(cni_cache.read(cache))
            else:
                found = (cni_cache.read_one(cache, name) for name in sorted(names))
                self._pods.add_cached(pod for pod in found if pod)
