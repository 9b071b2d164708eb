# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a Service's bypassed flow, its client hears as on the kernel path."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import socket
import threading

import pytest
from dialogue import PORT
from kubeservice import PORT as SERVICE_PORT
from kubeservice import VIRTUAL
from servicecalls import BACKENDS, CLIENT
from taps import socket_in

from vxlane.lab.waiting import wait_for

FULL, SMALLER = 1450, 1300
"""MTUs of the overlay, and of what comes to be on the way."""
IP_UDP = 28
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _TCP_USER_TIMEOUT = 10, 2, 18  # linux/in.h, linux/tcp.h
PATIENCE = 20


@contextlib.contextmanager
def sockets(lab, backend, kind):
    """A socket of the client's that is connected to the Service, and the backend's."""
    with (
        socket_in(lab.netns(backend), kind) as server,
        socket_in(lab.netns(CLIENT), kind) as client,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", PORT))
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        if kind == socket.SOCK_STREAM:
            server.listen()
        client.connect((VIRTUAL, SERVICE_PORT))
        yield client, server


def converse(client, server):
    """Datagrams to and fro, until the flow is bypassed."""
    for _ in range(5):
        client.send(b"?")
        _, whom = server.recvfrom(64)
        server.sendto(b"!", whom)
        assert client.recv(64) == b"!"


def echo(line):
    """Answer a connection until it ends."""
    with contextlib.suppress(OSError), line:
        while data := line.recv(1 << 16):
            line.sendall(data)


def on_both(lab, kernel_lab, kube_proxy, backend, tell):
    """Assert that `tell`, what a client hears, is the same in both labs, and return it.

    It has to be of a bypassed flow where there is vxlane.
    """
    for one in (kernel_lab, lab):
        kube_proxy("node1", backends=[one.address(backend)], lab=one)
    theirs = tell(kernel_lab, backend)
    with lab.verdicts("node1") as seen:
        ours = tell(lab, backend)
    assert ours == theirs
    assert seen["from_pod", "nat"] > 0
    return ours


def after_close(lab, backend):
    """What the client's socket says when the server's has gone."""
    with sockets(lab, backend, socket.SOCK_DGRAM) as (client, server):
        converse(client, server)
        server.close()
        said = []
        for _ in range(3):
            client.send(b"?")
            said.append(error_of(lambda: client.recv(64)))
        return said


@BACKENDS
def test_port_that_closes(lab, kernel_lab, kube_proxy, backend):
    """A client is told that nobody listens any more."""
    heard = on_both(lab, kernel_lab, kube_proxy, backend, after_close)
    assert heard == ["ECONNREFUSED"] * 3


def await_overlay(lab, device, size):
    """Return when the agent of a NIC that has changed has given the overlay that MTU."""

    def is_given():
        with lab.maps("node1") as maps:
            return maps.peers()[lab.node("node2").pod_cidr].mtu == size

    if device == AT_CLIENT[1]:
        wait_for(is_given, "the agent to see the NIC's MTU")


@contextlib.contextmanager
def mtu(lab, place, device, size):
    """Give a device another MTU inside the block."""
    shown = lab.exec(place, "ip", "link", "show", device).stdout
    before = re.search(r"mtu (\d+)", shown)[1]
    lab.exec(place, "ip", "link", "set", device, "mtu", str(size))
    try:
        await_overlay(lab, device, SMALLER)
        yield
    finally:
        lab.exec(place, "ip", "link", "set", device, "mtu", before)
        await_overlay(lab, device, FULL)
        lab.exec(CLIENT, "ip", "route", "flush", "cache")


AT_BACKEND, AT_CLIENT = ("node2", "cni0", SMALLER), ("node1", "eth0", SMALLER + 50)
"""Which device is given which MTU for SMALLER to be the path's."""


def told_mtu(lab):
    """The MTU that the client's stack has learned of the way to the Service."""
    route = lab.exec(CLIENT, "ip", "route", "get", VIRTUAL).stdout
    found = re.search(r"mtu (\d+)", route)
    return int(found[1]) if found else None


def narrowed(lab, kernel_lab, kube_proxy, transport, narrow):
    """What a client is told of a way that gets smaller."""
    tell = functools.partial(transport, narrow=narrow)
    if narrow == AT_BACKEND:
        return on_both(lab, kernel_lab, kube_proxy, "node2-pod1", tell)
    # A stock overlay keeps its MTU when the NIC's shrinks, and cuts its tunnels: nobody is told.
    # The first that is too large here is one of a flow that is bypassed in the new MTU.
    kube_proxy("node1", backends=[lab.address("node2-pod1")])
    for _ in range(3):
        with lab.verdicts("node1") as seen:
            told = tell(lab, "node2-pod1")
        assert seen["from_pod", "nat"] > 0
        # On a busy machine the approval may be over by then, and the kernel path tells.
        if seen["from_pod", "too_big"]:
            break
    assert seen["from_pod", "too_big"] > 0
    return told


def by_datagrams(lab, backend, narrow):
    """Send datagrams that must not be cut, large ones until they are refused."""
    with sockets(lab, backend, socket.SOCK_DGRAM) as (client, server):
        client.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
        converse(client, server)
        client.send(bytes(FULL - IP_UDP))
        assert len(server.recv(2000)) == FULL - IP_UDP
        with mtu(lab, *narrow):
            converse(client, server)
            told = refusal(lab, client)
            # The socket may hold an error yet of the last large one.
            wait_for(lambda: not is_refused(client, told), "what fits to be sent")
            # Before them are large ones from when the agent had not noticed yet.
            while len(server.recv(2000)) != told - IP_UDP:
                pass
        return told


def is_refused(client, size):
    """Whether the stack refuses to send a datagram of a packet of `size`."""
    try:
        client.send(bytes(size - IP_UDP))
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return True
        raise
    return False


def refusal(lab, client):
    """Send what is too large until the stack says so; the MTU that it was told."""
    return wait_for(
        lambda: is_refused(client, FULL) and told_mtu(lab), "the error", seconds=PATIENCE
    )


def by_connection(lab, backend, narrow):
    """Transfer until the client is told, and once more."""
    with sockets(lab, backend, socket.SOCK_STREAM) as (client, server):
        line, _ = server.accept()
        thread = threading.Thread(target=echo, args=(line,))
        thread.start()
        transfer(client)
        with mtu(lab, *narrow):
            for _ in range(5):
                transfer(client, pieces=1, piece=b"?")
            told = wait_for(lambda: transfer(client) or told_mtu(lab), "an error", seconds=PATIENCE)
            transfer(client)
        client.close()
        thread.join()
        return told


def transfer(client, pieces=32, piece=bytes(range(256)) * 64):
    """Send half a megabyte, in pieces that come back whole."""
    for _ in range(pieces):
        client.sendall(piece)
        came = b""
        while len(came) < len(piece):
            came += client.recv(1 << 16)
        assert came == piece


@pytest.mark.parametrize("narrow", [AT_BACKEND, AT_CLIENT], ids=["at-the-backend", "at-the-client"])
@pytest.mark.parametrize("transport", [by_datagrams, by_connection])
def test_way_that_gets_smaller(lab, kernel_lab, kube_proxy, transport, narrow):
    """When the way gets smaller under a flow, its client is told by how much, and it goes on."""
    assert narrowed(lab, kernel_lab, kube_proxy, transport, narrow) == SMALLER


def ask_and_answer(client, line):
    """Some questions and answers on a connection, both of whose ends are here."""
    for _ in range(5):
        client.sendall(b"?")
        assert line.recv(64) == b"?"
        line.sendall(b"!")
        assert client.recv(64) == b"!"


def after_death(lab, backend):
    """What the client's connection says when the server has ended, and what a new one says."""
    with sockets(lab, backend, socket.SOCK_STREAM) as (client, server):
        line, _ = server.accept()
        ask_and_answer(client, line)
        # What a process leaves unread makes its end a RST.
        client.sendall(b"unread")
        wait_for(lambda: line.recv(64, socket.MSG_PEEK), "what stays unread")
        line.close()
        server.close()
        said = [error_of(lambda: client.recv(64)), error_of(lambda: client.send(b"?"))]
        with socket_in(lab.netns(CLIENT), socket.SOCK_STREAM) as again:
            again.settimeout(PATIENCE)
            return [*said, error_of(lambda: again.connect((VIRTUAL, SERVICE_PORT)))]


def error_of(action):
    """The name of the error that it ends in; None: in none."""
    try:
        action()
    except TimeoutError as error:
        return errno.errorcode[error.errno] if error.errno else "no end"
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


@BACKENDS
def test_server_that_dies(lab, kernel_lab, kube_proxy, backend):
    """A client is told that its server has gone, and its next connection is refused."""
    heard = on_both(lab, kernel_lab, kube_proxy, backend, after_death)
    assert heard == ["ECONNRESET", "EPIPE", "ECONNREFUSED"]


def after_unplugging(lab, backend):
    """What the client's connection says when the backend is cut off, and what a new one says."""
    with sockets(lab, backend, socket.SOCK_STREAM) as (client, server):
        line, _ = server.accept()
        ask_and_answer(client, line)
        client.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, 2000)
        with line, unplugged(lab, backend):
            client.sendall(b"?")
            said = error_of(lambda: client.recv(64))
            with socket_in(lab.netns(CLIENT), socket.SOCK_STREAM) as again:
                again.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, 2000)
                again.settimeout(PATIENCE)
                return [said, error_of(lambda: again.connect((VIRTUAL, SERVICE_PORT)))]


@contextlib.contextmanager
def unplugged(lab, pod):
    """A pod whose interface is down inside the block."""
    routes = lab.exec(pod, "ip", "route", "show", "default").stdout.split()
    lab.exec(pod, "ip", "link", "set", "eth0", "down")
    yield
    lab.exec(pod, "ip", "link", "set", "eth0", "up")
    lab.exec(pod, "ip", "route", "replace", *routes)


@BACKENDS
def test_backend_without_a_link(lab, kernel_lab, kube_proxy, backend):
    """A connection to a pod that is cut off times out, and so does a new one."""
    heard = on_both(lab, kernel_lab, kube_proxy, backend, after_unplugging)
    assert heard == ["ETIMEDOUT", "ETIMEDOUT"]
