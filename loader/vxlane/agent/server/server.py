# SPDX-License-Identifier: Apache-2.0
"""The agent's socket: one JSON object per line in, one per line out, root only.

Owns connections and framing. The `Answer` that it is given carries out the operations.
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
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""From a request to its answer; a VxlaneError becomes {"ok": false, "error": ...}."""

_UCRED = struct.Struct("=iII")
_LONGEST_LINE = 1 << 20
_SEND_TIMEOUT = 2.0
"""Seconds for a client to read its answer: the agent's one thread waits for it."""


class Server:
    """Listens on `path` and answers through the selector that the agent waits on."""

    def __init__(self, path: Path, answer: Answer, selector: BaseSelector) -> None:
        self._answer = answer
        self._selector = selector
        self._connections: dict[socket.socket, bytearray] = {}
        self._path = path
        self._listener: socket.socket | None = None
        self._inode = 0
        """Of the file that the listener made."""
        self._refusal = ""
        self.listen()

    def listen(self) -> None:
        """Listen unless this server does already. Called again and again, since the file may be
        removed, and may be impossible to make for a while.
        """
        try:
            if self._listener and self._path.stat().st_ino == self._inode:
                return
        except OSError:
            pass  # It is not there any more.
        self._stop_listening()
        refusal = ""
        try:
            self._bind()
        except OSError as error:
            refusal = f"socket {self._path}: {error.strerror}; new pods are not accelerated"
        if refusal and refusal != self._refusal:
            log.warning("%s", refusal)
        self._refusal = refusal

    def close(self) -> None:
        """Stop listening and hang up."""
        for connection in list(self._connections):
            self._hang_up(connection)
        if self._listener:
            self._path.unlink(missing_ok=True)
        self._stop_listening()

    def _bind(self) -> None:
        """OSError: the file can't be made."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
            self._inode = self._path.stat().st_ino
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(mask)
        listener.listen(64)
        listener.setblocking(False)  # noqa: FBT003 (socket's own signature)
        self._selector.register(listener, EVENT_READ, self._accept)
        self._listener = listener

    def _stop_listening(self) -> None:
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Without descriptors it would be asked for again and again. The next call of listen()
            # is a new beginning.
            log.warning("socket %s: %s; it is closed for a while", self._path, error.strerror)
            self._stop_listening()
            return
        _, user, _ = _UCRED.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        if user != 0:
            connection.close()
            return
        connection.settimeout(_SEND_TIMEOUT)
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
            request = parse_json(line)
            if not isinstance(request, dict):
                raise ConfigError("a request is one JSON object on one line")
            return {"ok": True} | self._answer(request)
        except ValueError:
            return {"ok": False, "error": "a request is one JSON object on one line"}
        except VxlaneError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:
            log.exception("a request failed unexpectedly: %s", line)
            return {"ok": False, "error": f"unexpected {type(error).__name__}; please report it"}

    def _hang_up(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._connections[connection]
        connection.close()
