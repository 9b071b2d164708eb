# SPDX-License-Identifier: Apache-2.0
"""The container runtime's files that the agent follows: its cache of pods, and its CNI lists."""

from __future__ import annotations

from collections.abc import Callable

from vxlane.config import Config, PodSource
from vxlane.overlay.backend import Attempt
from vxlane.pods.pods import Pods
from vxlane.pods.watch import CacheWatch
from vxlane.runtime.installed import PluginKeeper
from vxlane.util.dirty import Dirty

Followed = list[tuple[int, Callable[[], Dirty]]]
"""Descriptors, and what to call when one is readable. The call returns what is to be reconciled."""


class RuntimeFiles:
    """Reads and follows them; what fails is tried again."""

    def __init__(self, config: Config, pods: Pods, attempt: Attempt) -> None:
        self._follows_pods = config.pod_source is not PodSource.PLUGIN
        self._pods = CacheWatch(config.caches, pods)
        self._plugin = PluginKeeper(config.cni_conf_dir, config.host_root)
        self._attempt = attempt

    def close(self) -> None:
        """Stop following."""
        self._pods.close()
        self._plugin.close()

    def read_pods(self) -> None:
        """Add the pods that the cache has, those of before the agent too."""
        with self._attempt("pods"):
            self._pods.read()

    def follow(self) -> Followed:
        """Follow what is wanted, as far as the kernel lets us."""
        wanted: list[tuple[int | None, Callable[[], Dirty]]] = [
            (self._plugin.start(), self._on_plugin)
        ]
        if self._follows_pods:
            wanted.append((self._pods.start(), self._on_pods))
        self._keep_plugin()
        return [(followed, action) for followed, action in wanted if followed is not None]

    def resync(self) -> None:
        """Compare everything: some file systems have no events, and their queue may overflow."""
        self._keep_plugin()
        if self._follows_pods:
            self.read_pods()

    def _keep_plugin(self) -> None:
        """Repair the installation of the CNI plugin, if it is installed."""
        with self._attempt("CNI plugin"):
            self._plugin.settle()

    def _on_plugin(self) -> Dirty:
        """A directory has changed in which the plugin or its list is installed."""
        with self._attempt("CNI plugin"):
            self._plugin.on_event()
        return Dirty(0)

    def _on_pods(self) -> Dirty:
        """The runtime has written files of pods."""
        with self._attempt("pods"):
            self._pods.on_event()
        return Dirty.PODS
