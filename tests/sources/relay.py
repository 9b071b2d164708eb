# SPDX-License-Identifier: Apache-2.0
"""A TCP relay that can be shut, or go silent without closing, as networks do."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Relay:
    """Passes connections on to the server at `url`."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url).hostname, urlsplit(url).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._ends: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._open = True
        self.accepted = 0
        """Connections so far."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._port}"

    def shut(self) -> None:
        """Cut all connections, and each new one at once."""
        self._open = False
        self._cut()

    def reopen(self) -> None:
        """Let connections through again."""
        self._open = True

    def freeze(self) -> None:
        """Pass nothing on any more, without telling anybody."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on again what comes over new connections."""
        self._cut()
        self._flows.set()

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        self._cut()

    def _cut(self) -> None:
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self.accepted += 1
                if self._open:
                    threading.Thread(target=self._pass, args=(client,), daemon=True).start()
                else:
                    client.close()

    def _pass(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(self._target) as server,
        ):
            self._ends |= {client, server}
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
