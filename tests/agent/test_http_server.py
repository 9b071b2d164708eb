# SPDX-License-Identifier: Apache-2.0
"""The server of probes and scrapes, whatever comes to its port."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from vxlane.agent.server import http
from vxlane.agent.server.http import HttpServer, Response
from vxlane.config import Listen
from vxlane.errors import ConfigError

HOST = "127.0.0.1"
LARGE = b"x" * (16 << 20)
"""More than the kernel keeps for a client that does not read."""
ANSWERS = {
    "/": Response(b"here"),
    "/large": Response(LARGE, headers={"X-Kind": "large"}),
    "/busy": Response(b"later", HTTPStatus.SERVICE_UNAVAILABLE),
}


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    server = HttpServer(Listen(HOST, port), lambda path, _: ANSWERS[path], "some")
    yield port
    server.close()


@pytest.fixture
def hasty_port(port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of one that closes a connection which is not answered within a second."""
    monkeypatch.setattr(http, "_TIMEOUT", 1.0)
    return port


def get(port: int, path: str = "/") -> bytes:
    """The body of an answer."""
    with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=5) as answer:
        return answer.read()


def connect(port: int, said: bytes = b"") -> socket.socket:
    """A connection on which something was said, or nothing."""
    connection = socket.create_connection((HOST, port), timeout=5)
    connection.sendall(said)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the server hangs up before the test's own time limit."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_answers(port: int) -> None:
    """A GET has its status, headers and whole body; a fault in the answer is a 500."""
    assert get(port) == b"here"
    assert get(port, "/?name=value") == b"here"
    assert get(port, "/large") == LARGE
    for path, status in (("/busy", 503), ("/missing", 500)):
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(port, path)
        assert raised.value.code == status
        raised.value.close()


def test_only_get_is_known(port: int) -> None:
    """Another method is refused, and not taken for a GET."""
    with connect(port, b"POST / HTTP/1.1\r\n\r\n") as connection:
        assert connection.recv(64).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HT", b"GET\r\n\r\n", b"\x16\x03\x01" * 9, b"GET / HTTP/1.1\r\nX: " + b"x" * 9000],
    ids=["nothing", "half", "no-target", "tls", "long"],
)
def test_what_is_no_request_is_hung_up_on(hasty_port: int, said: bytes) -> None:
    """A connection without a whole request is closed in time, and others are answered meanwhile."""
    with connect(hasty_port, said) as connection:
        assert get(hasty_port) == b"here"
        assert is_closed(connection)


def test_a_client_that_does_not_read_is_hung_up_on(hasty_port: int) -> None:
    """An answer that is not taken ends with the connection's time, not later."""
    with connect(hasty_port, b"GET /large HTTP/1.1\r\n\r\n") as connection:
        assert get(hasty_port) == b"here"
        threading.Event().wait(2)
        received = 0
        try:
            while octets := connection.recv(1 << 20):
                received += len(octets)
        except ConnectionResetError:
            pass
        assert received < len(LARGE)


def test_the_oldest_goes_for_the_newest(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections beyond the limit cost no thread, and no request its answer."""
    monkeypatch.setattr(http, "_TIMEOUT", 60)
    threads = threading.active_count()
    idle = [connect(port) for _ in range(400)]
    assert get(port) == b"here"
    assert threading.active_count() == threads
    assert all(is_closed(connection) for connection in idle[:200])
    for connection in idle:
        connection.close()


def test_a_port_that_is_taken(port: int) -> None:
    """The error names the place and the options."""
    advice = "give another --some-ip or --some-port"
    with pytest.raises(ConfigError, match=f"{HOST}:{port}: .*; {advice}"):
        HttpServer(Listen(HOST, port), lambda path, _: ANSWERS[path], "some")
