# SPDX-License-Identifier: Apache-2.0
"""Namespaces that a thread enters."""

import os
import socket
from pathlib import Path

import pytest

from vxlane.errors import KernelError
from vxlane.runtime import netns


def test_a_socket_stays_where_it_was_made(make_netns):
    """A socket that a thread makes in a namespace stays there when the thread is back home."""
    home = socket.if_nameindex()
    where = netns.path(make_netns("visited"))
    with netns.entered(where):
        assert socket.if_nameindex() == [(1, "lo")]
        server = socket.create_server(("127.0.0.1", 0))
    assert socket.if_nameindex() == home
    with server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname())
        with netns.entered(where):
            socket.create_connection(server.getsockname()).close()


@pytest.mark.usefixtures("_machine")
def test_a_file_holds_a_namespace(tmp_path):
    """A namespace is there as long as its file is; a file that is taken is refused."""
    where = tmp_path / "pod"
    netns.make(where)
    try:
        with pytest.raises(FileExistsError):
            netns.make(where)
        with netns.entered(where):
            assert socket.if_nameindex() == [(1, "lo")]
    finally:
        netns.remove(where)
    assert not where.exists()
    assert str(where) not in Path("/proc/self/mountinfo").read_text()
    netns.remove(where)


@pytest.mark.usefixtures("_machine")
def test_a_fifo_is_no_namespace(tmp_path):
    """Whoever names the file may have put anything there, and the thread must not wait for it."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(KernelError, match="enter"), netns.entered(tmp_path / "fifo"):
        pass
