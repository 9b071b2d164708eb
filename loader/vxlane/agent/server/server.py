# SPDX-License-Identifier: Apache-2.0
"""The agent's socket: one JSON object per line in, one per line out, root only.

Owns connections and framing; what an operation does is the `Answer` that it is given.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import Any

from vxlane.errors import ConfigError, VxlaneError

log = logging.getLogger(__name__)

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""From a request to its answer; a VxlaneError becomes {"ok": false, "error": ...}."""

_UCRED = struct.Struct("=iII")
_LONGEST_LINE = 1 << 20
_SEND_PATIENCE = 2.0
"""Seconds that an answer may take to be read; the agent has one thread."""


class Server:
    """Listens on `path` and answers through the selector that the agent waits on."""

    def __init__(self, path: Path, answer: Answer, selector: BaseSelector) -> None:
        self._answer = answer
        self._selector = selector
        self._connections: dict[socket.socket, bytearray] = {}
        self._path = path
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            raise ConfigError(
                f"socket {path}: {error.strerror}; give another --state-dir"
            ) from None
        finally:
            os.umask(mask)
        self._listener.listen(64)
        self._listener.setblocking(False)  # noqa: FBT003 (socket's own signature)
        selector.register(self._listener, EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening and hang up."""
        for connection in list(self._connections):
            self._hang_up(connection)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        _, user, _ = _UCRED.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        if user != 0:
            connection.close()
            return
        connection.settimeout(_SEND_PATIENCE)
        self._connections[connection] = bytearray()
        self._selector.register(connection, EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: socket.socket) -> None:
        buffer = self._connections[connection]
        try:
            received = connection.recv(1 << 16)
            buffer += received
            while b"\n" in buffer:
                line, _, rest = buffer.partition(b"\n")
                buffer[:] = rest
                connection.sendall(json.dumps(self._respond(bytes(line))).encode() + b"\n")
        except OSError:
            received = b""
        if not received or len(buffer) > _LONGEST_LINE:
            self._hang_up(connection)

    def _respond(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ConfigError("a request is one JSON object on one line")
            return {"ok": True} | self._answer(request)
        except ValueError:
            return {"ok": False, "error": "a request is one JSON object on one line"}
        except VxlaneError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:
            log.exception("a request failed in a way that nobody foresaw: %s", line)
            return {"ok": False, "error": f"unexpected {type(error).__name__}; please report it"}

    def _hang_up(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._connections[connection]
        connection.close()
