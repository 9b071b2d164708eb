# SPDX-License-Identifier: Apache-2.0
"""Tells systemd (sd_notify) and scripts (by a file) that the agent is ready."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

log = logging.getLogger(__name__)


class Readiness:
    """Says once that the agent is ready, and that it stops."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._is_told = False
        self._remove_file()

    def ready(self) -> None:
        """The node's network is up. Only the first call says so."""
        if self._is_told:
            return
        self._is_told = True
        if self._file:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch()
            except OSError as error:
                log.warning("make %s: %s; give another --ready-file", self._file, error.strerror)
        _notify("READY=1")

    def stopping(self) -> None:
        """The agent ends; the datapath stays."""
        self._remove_file()
        _notify("STOPPING=1")

    def _remove_file(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # Not there, or on a disk that takes no write.
                self._file.unlink()


def _notify(message: str) -> None:
    """One datagram to $NOTIFY_SOCKET, as sd_notify(3) has it; a service manager may be gone."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), address)
