# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server for probes and scrapes: one GET for each connection.

Every pod can reach such a port, so nothing that others do there may cost the agent much. One thread
serves all connections. A connection that is not answered in time is closed. Beyond a number of
connections a new one displaces the oldest, so a probe is answered while thousands are idle.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from vxlane.config import Listen
from vxlane.errors import ConfigError

log = logging.getLogger(__name__)

_TIMEOUT = 10.0
"""Seconds from a connection's start to the end of its answer; Prometheus waits as long."""
_MOST = 128
"""Connections at a time. The default limit of descriptors is 1,024."""
_LONGEST_HEAD = 8192
"""Bytes of a request."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[str, Mapping[str, str]], Response]
"""From a path and the request's headers (names in lower case) to the response."""


class HttpServer:
    """Listens until it is closed."""

    def __init__(self, listen: Listen, answer: Answer, what: str) -> None:
        """Listen, and start the thread. ConfigError: no such address, by the options of `what`."""
        family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
        try:
            listener = socket.create_server(
                (listen.address, listen.port), family=family, backlog=_MOST
            )
        except OSError as error:
            place = f"{listen.address}:{listen.port}"
            advice = f"give another --{what}-ip or --{what}-port"
            raise ConfigError(f"{place}: {error.strerror}; {advice}") from None
        self._answer = answer
        self._open: dict[asyncio.Task[None], None] = {}
        """Connections, the oldest first."""
        self._loop = asyncio.new_event_loop()
        start = asyncio.start_server(self._serve, sock=listener, limit=_LONGEST_HEAD)
        self._server = self._loop.run_until_complete(start)
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and hang up."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()

    async def _hang_up(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open[task] = None
        if len(self._open) > _MOST:
            oldest = next(iter(self._open))
            # At once: the cancelled task removes itself only when this one waits.
            del self._open[oldest]
            oldest.cancel()
        try:
            await asyncio.wait_for(self._exchange(reader, writer), _TIMEOUT)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError, asyncio.LimitOverrunError):
            pass  # The client went away, was too slow, or did not speak HTTP.
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        response = self._respond(method, target.partition("?")[0], headers)
        # With a limit of 0 drain() returns when the kernel has taken all of it.
        writer.transport.set_write_buffer_limits(0)
        writer.write(_octets(response))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _respond(self, method: str, path: str, headers: Mapping[str, str]) -> Response:
        if method != "GET":
            return Response(b"only GET is known here\n", HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return self._answer(path, headers)
        except Exception:
            log.exception("the answer to GET %s failed unexpectedly", path)
            return Response(b"see the agent's log\n", HTTPStatus.INTERNAL_SERVER_ERROR)


def _octets(response: Response) -> bytes:
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(response.body)),
        "Connection": "close",
        **response.headers,
    }
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + response.body
