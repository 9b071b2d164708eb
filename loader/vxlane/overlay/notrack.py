# SPDX-License-Identifier: Apache-2.0
"""Keeps the kernel path's tunnel packets out of conntrack, as long as no rule can tell.

A rule that treats untracked packets differently might drop them. So they are kept out only while
all rules that they may meet are read, and none treats them differently.
"""

from __future__ import annotations

import errno
import logging

from vxlane.config import Config
from vxlane.errors import KernelError, VxlaneError
from vxlane.host.notrack import Notrack, Tunnel
from vxlane.host.own_tables import TUNNELS
from vxlane.host.undo import UndoFile
from vxlane.overlay.backend import OverlayState
from vxlane.util.names import device_name

log = logging.getLogger(__name__)

_MOST_NAMES = 3
_UNREAD = "the node's rules have just changed, or are not read yet"


def hindrance(overlay: OverlayState | None, found: tuple[str, ...] | None) -> str:
    """Why the tunnel's packets must be tracked. Empty: they need not be.

    `found` are the chains that may treat them differently. None: the rules are not read yet.
    """
    if overlay is None or not overlay.device or not overlay.nics:
        return "there is no tunnel"
    if found is None:
        return _UNREAD
    if found:
        more = ", ..." if len(found) > _MOST_NAMES else ""
        return f"conntrack may decide about them: {', '.join(found[:_MOST_NAMES])}{more}"
    return ""


class NotrackKeeper:
    """Writes the notrack rules, renews them, and withdraws them at once when there is a reason."""

    def __init__(self, config: Config, undo: UndoFile) -> None:
        self._is_wanted = config.untracks
        self._undo = undo
        self._rules = Notrack()
        self._put: Tunnel | None = None
        """What the table was written for. None: this agent has not written it."""
        self._refused: Tunnel | None = None
        """What nft could not write. It is tried again at the next renewal."""
        self._holds = bool(undo.known.notrack)
        """Whether the rules may act on packets, also rules that a killed agent has left."""
        self.state = self._told = "off"
        """`on`, `off` (not wanted) or why not, for `vxlane status`."""

    def close(self) -> None:
        """Remove the rules. KernelError: the kernel refused it."""
        try:
            self._remove()
        finally:
            self._rules.close()

    def reconcile(self, overlay: OverlayState | None, found: tuple[str, ...] | None) -> None:
        """Make the rules act or not, as `hindrance` says. KernelError: they can't be withdrawn."""
        if not self._is_wanted:
            self._remove()
            return
        reason = hindrance(overlay, found)
        if reason or not overlay:
            self._withdraw()
            self._tell(reason)
        elif not self._holds or self._tunnel(overlay) != self._put:
            self._hold(self._tunnel(overlay))

    def renew(self) -> None:
        """Make the rules act for some seconds more. Write them again if someone removed them."""
        self._refused = None
        if self._holds and self._put:
            try:
                self._rules.renew(self._put)
            except KernelError as error:
                log.info("%s; write them anew", error)
                tunnel, self._put = self._put, None
                self._hold(tunnel)

    def _hold(self, tunnel: Tunnel) -> None:
        if tunnel == self._refused:
            return
        try:
            if tunnel != self._put:
                self._undo.note(notrack=TUNNELS)
                self._rules.put(tunnel)
                # They act from the next call on, after the events of the meantime are read.
                self._put, self._holds = tunnel, False
                self._tell(_UNREAD)
                return
            self._rules.renew(tunnel)
        except VxlaneError as error:
            self._put, self._refused = None, tunnel
            self._tell(str(error))
            return
        self._holds = True
        self._tell("on")

    def _withdraw(self) -> None:
        if self._holds:
            try:
                self._rules.withdraw()
            except KernelError as error:
                self._put = None
                if error.errno != errno.ENOENT:
                    raise
            self._holds = False

    def _remove(self) -> None:
        if self._undo.known.notrack:
            self._rules.remove()
            self._put, self._holds = None, False
            self._undo.note(notrack="")

    def _tell(self, state: str) -> None:
        self.state = state
        if state not in {self._told, _UNREAD}:
            self._told = state
            log.info("tunnel packets kept out of conntrack: %s", state)

    def _tunnel(self, overlay: OverlayState) -> Tunnel:
        nics = tuple(sorted(map(device_name, overlay.nics)))
        return Tunnel(overlay.address, overlay.port, overlay.vni, nics)
