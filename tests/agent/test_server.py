# SPDX-License-Identifier: Apache-2.0
"""The agent's socket, when the process is short of descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from selectors import DefaultSelector

from vxlane.agent.server.server import Server


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """This process can open nothing (EMFILE) within the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def serve(selector: DefaultSelector) -> int:
    """Do what is to be done now; how much that was."""
    ready = selector.select(0)
    for key, _ in ready:
        key.data()
    return len(ready)


def test_a_client_that_can_not_be_let_in_ends_nothing(tmp_path: Path) -> None:
    """The agent goes on, does not spin, and listens again at its next look."""
    path, selector = tmp_path / "sock", DefaultSelector()
    with contextlib.closing(Server(path, lambda _: {"ok": True}, selector)) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            with no_descriptor():
                assert serve(selector) == 1
                assert serve(selector) == 0
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"{}\n")
            assert serve(selector) == 1
            assert serve(selector) == 1
            assert client.recv(100) == b'{"ok": true}\n'
