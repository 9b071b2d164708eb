# SPDX-License-Identifier: Apache-2.0
"""/healthz and /readyz over HTTP, with flannel's bodies, so that its probes fit.

Runs in a thread of its own: a probe must not wait for a look at 10,000 peers.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from http import HTTPStatus

from vxlane.config import Listen
from vxlane.errors import ConfigError


def serve(listen: Listen, is_ready: Callable[[], bool]) -> http.server.ThreadingHTTPServer:
    """Answer from now on; `shutdown` and `server_close` of what is returned end it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = _answer(self.path, is_ready)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A probe every few seconds is not worth a line."""

    try:
        server = http.server.ThreadingHTTPServer((listen.address, listen.port), Handler)
    except OSError as error:
        place = f"{listen.address}:{listen.port}"
        raise ConfigError(f"{place}: {error.strerror}; give another --healthz-port") from None
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _answer(path: str, is_ready: Callable[[], bool]) -> tuple[HTTPStatus, bytes]:
    if path == "/healthz":
        return HTTPStatus.OK, b"flanneld is running"
    if path != "/readyz":
        return HTTPStatus.NOT_FOUND, b"there are /healthz and /readyz"
    if is_ready():
        return HTTPStatus.OK, b"flanneld is ready"
    return HTTPStatus.SERVICE_UNAVAILABLE, b"flanneld is not ready yet"
