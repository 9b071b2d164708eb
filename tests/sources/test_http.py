# SPDX-License-Identifier: Apache-2.0
"""The HTTP client against servers that say exactly what a test wants."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vxlane.errors import ConfigError, SourceError
from vxlane.sources.http import LONGEST_PAUSE, HttpClient, HttpError, SilenceError

Behave = Callable[[socket.socket, bytes], None]
Serve = Callable[[Behave], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes servers that read a request and then do what the test says, and gives their URLs."""
    listeners = []

    def start(behave: Behave) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    try:
                        behave(connection, connection.recv(65536))
                    except OSError:
                        pass

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def sends(*parts: bytes, every: float = 0.0) -> Behave:
    """A server that sends these parts, each with a pause after it, and then closes."""

    def behave(connection: socket.socket, _: bytes) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(every)

    return behave


def answer(body: bytes, *, length: int | None = None) -> bytes:
    """A proper answer, or one that promises more than it has."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (length or len(body), body)


def test_a_call_returns_json(serve: Serve) -> None:
    """The body of an answer is parsed; the path of the base address comes before the call's."""
    asked: list[bytes] = []

    def behave(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(answer(b'{"a":[1]}'))

    client = HttpClient([f"{serve(behave)}/base/"], headers=lambda: {"Authorization": "me"})
    assert client.call("GET", "/x") == {"a": [1]}
    assert asked[0].startswith(b"GET /base/x HTTP/1.1\r\n")
    assert b"Authorization: me\r\n" in asked[0]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (answer(b'{"a":1}', length=100), "cut in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{", "cut in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP|cut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no proper HTTP"),
        (b"", "closed before an answer"),
        (answer(b"<html>"), "not JSON"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "answered 302"),
        (b'HTTP/1.1 500 x\r\nContent-Length: 17\r\n\r\n{"message":"why"}', "answered 500: why"),
        (b"HTTP/1.1 500 x\r\nContent-Length: 3\r\n\r\nwhy", "answered 500: why"),
        (b"HTTP/1.1 500 Reason\r\nContent-Length: 0\r\n\r\n", "answered 500: Reason"),
        (b"HTTP/1.1 503 x\r\nContent-Length: 6\r\n\r\na\n b\n\n", "answered 503: a b$"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=x\r\n\r\n", "html.* not JSON"),
    ],
)
def test_whatever_is_no_answer_is_a_source_error(serve: Serve, sent: bytes, words: str) -> None:
    """Half an answer, another protocol, nothing and refusals are errors that say which."""
    with pytest.raises(SourceError, match=words):
        HttpClient([serve(sends(sent))], timeout=1.0).call("GET", "/")


def test_an_error_is_the_same_whatever_was_asked(serve: Serve) -> None:
    """A random number in the question makes no new sentence, which would be logged again."""
    client = HttpClient([serve(sends(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"))])
    said = set()
    for path in "/x?seconds=1", "/x?seconds=2":
        with pytest.raises(HttpError) as raised:
            client.call("GET", path)
        said.add(str(raised.value))
    assert len(said) == 1


def test_a_dripping_call_ends_at_its_deadline(serve: Serve) -> None:
    """A body that never pauses long enough to time out still can't hold a call for ever."""
    parts = [b" "] * 100
    url = serve(sends(answer(b"", length=100), *parts, every=0.02))
    began = time.monotonic()
    with pytest.raises(SourceError, match="in time"):
        HttpClient([url], timeout=1.0, deadline=0.2).call("GET", "/")
    # The whole body takes 2 s.
    assert time.monotonic() - began < 1.5


def test_a_stream_may_pause_for_less_than_silence(serve: Serve) -> None:
    """A stream outlives timeout and deadline, and ends with SilenceError when it falls silent."""
    url = serve(sends(answer(b"", length=100), *[b"x"] * 5, b"", every=0.6))
    client = HttpClient([url], timeout=0.5, deadline=0.5)
    with client.stream("GET", "/", silence=10.0) as blocks:
        read = b""
        while len(read) < 5:  # two of them may come as one block
            read += next(blocks)
    never = HttpClient([serve(sends(answer(b"", length=9), every=1.0))])
    with pytest.raises(SilenceError), never.stream("GET", "/", silence=0.1) as blocks:
        next(blocks)


def test_close_ends_a_read_in_another_thread(serve: Serve) -> None:
    """A reader that waits is set free at once, and later calls fail without waiting."""
    client = HttpClient([serve(sends(answer(b"", length=9), every=2.0))])
    threading.Timer(0.1, client.close).start()
    began = time.monotonic()
    with pytest.raises(SourceError):
        client.call("GET", "/")
    with pytest.raises(SourceError, match="closed"):
        client.call("GET", "/")
    # The server says something after 2 s.
    assert time.monotonic() - began < 1.5


def test_retry_after_is_read_and_its_date_form_ignored(serve: Serve) -> None:
    """Seconds become `retry_after`, within reason; a date, for which clocks would have to agree, is
    none.
    """
    for header, expected in (
        (b"7", 7.0),
        (b"Sun, 22 Nov 2026 10:00:00 GMT", 0.0),
        (b"86400", LONGEST_PAUSE),
        (b"9" * 400, LONGEST_PAUSE),
    ):
        refusal = b"HTTP/1.1 429 x\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % header
        with pytest.raises(HttpError) as raised:
            HttpClient([serve(sends(refusal))]).call("GET", "/")
        assert raised.value.retry_after == expected


def test_a_broken_server_is_left_for_the_next(serve: Serve) -> None:
    """An address without a listener is passed over at once, one that answers 5xx by the next
    call, and so is a proxy's; a refusal that is our own fault does not count.
    """
    bad = serve(sends(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"))
    proxy = serve(sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"))
    picky = serve(sends(b"HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n"))
    client = HttpClient(["http://127.0.0.1:1", bad, proxy, picky])
    for words in "503", "not JSON", "403", "403":
        with pytest.raises(SourceError, match=words):
            client.call("GET", "/")


@pytest.mark.parametrize(
    "url", ["", "host:80", "ftp://host", "http://", "http://h:x", "http://h:0"]
)
def test_impossible_addresses_are_refused(url: str) -> None:
    """What can't be a server's address is a ConfigError before anything is sent."""
    with pytest.raises(ConfigError, match="https://host:port"):
        HttpClient([url])


def test_servers_that_can_not_be_reached_are_all_named() -> None:
    """Without any listener the error has every address and its reason."""
    client = HttpClient(["http://127.0.0.1:1", "http://127.0.0.1:2"])
    with pytest.raises(SourceError, match=r"127.0.0.1:1: .*refused.*127.0.0.1:2: .*refused"):
        client.call("GET", "/")
