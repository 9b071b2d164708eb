# SPDX-License-Identifier: Apache-2.0
"""Loads the bypass for an overlay, and again when it no longer fits."""

from __future__ import annotations

import time

from vxlane.agent.retry import Retry
from vxlane.bypass.bypass import Bypass, constants_for
from vxlane.config import Config
from vxlane.host.devices import Devices
from vxlane.host.undo import UndoFile
from vxlane.overlay.backend import OverlayState
from vxlane.pods.pods import Pods
from vxlane.util.tally import Tally

_RETRY_AFTER = 60.0
"""Seconds until programs that did not load are loaded again: an attempt takes a second of CPU."""


class BypassLoader:
    """Owns the bypass that is loaded now."""

    def __init__(
        self, config: Config, devices: Devices, *, undo: UndoFile, pods: Pods, tally: Tally
    ) -> None:
        self.bypass: Bypass | None = None
        """None: none is loaded, or could be."""
        self.loaded_at = 0.0
        """When one was loaded last (CLOCK_MONOTONIC)."""
        self._config = config
        self._devices = devices
        self._undo = undo
        self._pods = pods
        self._tally = tally
        self._retry = Retry(_RETRY_AFTER)

    def fitting(self, overlay: OverlayState | None) -> Bypass | None:
        """The bypass, if it was loaded for such an overlay and is whole."""
        bypass = self.bypass
        if not overlay or not bypass or bypass.constants != constants_for(self._config, overlay):
            return None
        return bypass if bypass.is_whole else None

    def load(self, overlay: OverlayState, *, is_enabled: bool) -> None:
        """Load one for `overlay` in place of the last one. It takes seconds to compile.

        VxlaneError: that can't be done now, or failed less than a minute ago.
        """
        self._retry.run(lambda: self._load(overlay, is_enabled=is_enabled))
        self.loaded_at = time.monotonic()

    def close(self, *, is_awaited: bool) -> None:
        """See `Bypass.close`."""
        if self.bypass:
            self.bypass.close(is_awaited=is_awaited)

    def _load(self, overlay: OverlayState, *, is_enabled: bool) -> None:
        self.close(is_awaited=False)
        self.bypass = None
        self.bypass = Bypass(
            self._config,
            self._devices,
            undo=self._undo,
            pods=self._pods,
            overlay=overlay,
            tally=self._tally,
        )
        if not is_enabled:
            self.bypass.lease.switch(overlay, is_enabled=False)
