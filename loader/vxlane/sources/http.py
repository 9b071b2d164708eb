# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 for the sources of nodes: JSON calls and endless streams, over TCP or TLS.

Owns the sockets of a source. Does not know Kubernetes, etcd or nodes. Imports the standard library
and the error tree only.

Why not requests, httpx or a Kubernetes client? A source needs four things, which they lack or for
which they take 15 to 100 MB: a body that comes block by block (a list of 10,000 nodes is 150 MB of
JSON); a limit on silence and another one on the whole call; TLS files that are read for each
connection, since certificates and tokens rotate; a close() from another thread that ends a read at
once.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from vxlane.errors import ConfigError, SourceError
from vxlane.util.jsontext import parse_json

JSON = "application/json"
BLOCK = 64 * 1024
"""Bytes of a body that are in memory at once, before parsing."""

# A peer that vanished without a FIN (power, partition, a forgotten NAT entry) is noticed after
# KEEPIDLE + KEEPINTVL * KEEPCNT seconds, also while a stream may be silent for longer.
KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}

LONGEST_PAUSE = 300.0
"""Seconds of a Retry-After that count: what answers may be a proxy that knows no better."""

TlsMaker = Callable[[], ssl.SSLContext]
HeaderMaker = Callable[[], Mapping[str, str]]


class HttpError(SourceError):
    """The server refused a request. `retry_after` is the pause that it asks for, in seconds."""

    def __init__(self, url: str, status: int, *, words: str, retry_after: float = 0.0) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{url} answered {status}: {words}")


class SilenceError(SourceError):
    """An open stream was silent for too long. The connection may be dead."""


class HttpClient:
    """Calls one server, or one of several equal ones, with a new connection for each call.

    `timeout` is the longest wait in seconds for a connection or for the next bytes of an answer.
    `deadline` is the longest time in seconds for a whole call, so that a slow body can't hold it
    for ever. `tls` and `headers` are called for each connection.
    """

    def __init__(
        self,
        bases: Sequence[str],
        *,
        tls: TlsMaker = ssl.create_default_context,
        headers: HeaderMaker = dict,
        timeout: float = 10.0,
        deadline: float = 60.0,
    ) -> None:
        self._bases = [checked_url(base) for base in bases]
        self._tls = tls
        self._headers = headers
        self._timeout = timeout
        self._deadline = deadline
        self._turn = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._closed = False

    def call(
        self, method: str, path: str, *, body: bytes | None = None, content_type: str = JSON
    ) -> Any:
        """Send one request and return the parsed JSON of its answer."""
        with self.stream(method, path, body=body, content_type=content_type) as blocks:
            text = b"".join(blocks)
        try:
            return parse_json(text)
        except ValueError as error:
            raise SourceError(f"the answer to {method} {path} is not JSON") from error

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = JSON,
        silence: float | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """Send one request. Inside the with, iterate over the answer's body block by block.

        With `silence` the body may last for ever, but no pause in it may be longer than that many
        seconds. Without it the client's timeout and deadline apply.
        """
        base, connection = self._connected()
        # Without the query, which may differ each time: a sentence that changes is logged again.
        url, sock = base + path.partition("?")[0], connection.sock
        try:
            headers = {"Accept": JSON, "User-Agent": "vxlane", **self._headers()}
            if body is not None:
                headers["Content-Type"] = content_type
            connection.request(method, urlsplit(base).path + path, body=body, headers=headers)
            response = connection.getresponse()
            if response.status >= http.client.MULTIPLE_CHOICES:
                raise _refusal(url, response)
            if (kind := response.getheader("Content-Type", JSON)).partition(";")[0] != JSON:
                # A proxy that has lost its servers may say so with 200.
                raise ConnectionError(f"it answers {kind}, not JSON; is it a proxy?")
            if silence is None:
                yield _blocks(response, time.monotonic() + self._deadline)
            else:
                sock.settimeout(silence)
                yield _audible(url, _blocks(response, math.inf))
        except HttpError as error:
            if error.status >= http.client.INTERNAL_SERVER_ERROR:
                self._turn += 1
            raise
        except (OSError, http.client.HTTPException) as error:
            self._turn += 1
            raise SourceError(f"{url}: {_reason(error)}") from error
        finally:
            self._dropped(connection, sock)

    def close(self) -> None:
        """End every current read, from any thread. Later calls fail at once."""
        with self._lock:
            self._closed = True
            for sock in self._sockets:
                # Not sock.shutdown(): SSLSocket's drops its TLS state while the reader uses it.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _connected(self) -> tuple[str, http.client.HTTPConnection]:
        """A connection to the next server in turn that can be reached."""
        failures = []
        for _ in self._bases:
            base = self._bases[self._turn % len(self._bases)]
            try:
                return base, self._connection(base)
            except OSError as error:
                self._turn += 1
                failures.append(f"{base}: {_reason(error)}")
        raise SourceError("; ".join(failures))

    def _connection(self, base: str) -> http.client.HTTPConnection:
        parts = urlsplit(base)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            tls = self._tls()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._timeout, context=tls
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        connection.connect()
        sock = connection.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        with self._lock:
            if not self._closed:
                self._sockets.add(sock)
                return connection
        connection.close()
        raise ConnectionAbortedError("the source was closed")

    def _dropped(self, connection: http.client.HTTPConnection, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(sock)
        # An answer that is not read to its end holds the socket's file too, so close both.
        connection.close()
        sock.close()


def checked_url(url: str) -> str:
    """`url` without a final slash; ConfigError: it is not the address of a server."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # the port is no number, or a bracket is open
        known = False
    if not known:
        raise ConfigError(f"{url!r} is not the address of a server; write it as https://host:port")
    return url.rstrip("/")


def _audible(url: str, blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except TimeoutError as error:
        raise SilenceError(f"{url}: the stream fell silent") from error


def _blocks(response: http.client.HTTPResponse, deadline: float) -> Iterator[bytes]:
    while block := response.read1(BLOCK):
        yield block
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    # read1 does not report a body that ends before its Content-Length.
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def _refusal(url: str, response: http.client.HTTPResponse) -> HttpError:
    text = response.read(BLOCK).decode(errors="replace")
    try:
        words = str(parse_json(text)["message"])
    except (ValueError, KeyError, TypeError):
        words = " ".join(text.split())[:200] or response.reason
    after = response.getheader("Retry-After", "")
    # The date form of Retry-After is not used by API servers, and clocks differ.
    pause = min(float(after), LONGEST_PAUSE) if after.isdecimal() else 0.0
    return HttpError(url, response.status, words=words, retry_after=pause)


def _reason(error: OSError | http.client.HTTPException) -> str:
    """A failure below HTTP in words, with the next step where there is one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); check the CA file"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut in the middle of an answer"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        # TLS 1.3 has a client's certificate refused only after the handshake.
        return "the connection was cut; if it is each time, give another client certificate"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}); check certificate, key and CA files"
    if isinstance(error, TimeoutError):
        return "no answer came in time; is the server overloaded, or a firewall between?"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the server up, and its address right?"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed before an answer"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no proper HTTP ({error!r}); is this the right port?"
