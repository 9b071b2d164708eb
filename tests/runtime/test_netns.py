# SPDX-License-Identifier: Apache-2.0
"""Namespaces that a thread enters."""

import socket

import pytest

from vxlane.errors import ToolError
from vxlane.runtime import netns


def test_a_socket_stays_where_it_was_made(make_netns):
    """A socket that a thread makes in a namespace stays there when the thread is back home."""
    home = socket.if_nameindex()
    name = make_netns("visited")
    with netns.entered(name):
        assert socket.if_nameindex() == [(1, "lo")]
        server = socket.create_server(("127.0.0.1", 0))
    assert socket.if_nameindex() == home
    with server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname())
        with netns.entered(name):
            socket.create_connection(server.getsockname()).close()


def test_a_namespace_is_made_once(make_netns):
    """A name that is taken is refused in ip's words, and a missing one is removed silently."""
    with pytest.raises(ToolError, match="File exists"):
        netns.add(make_netns("taken"))
    netns.remove("there-is-no-such-namespace")
