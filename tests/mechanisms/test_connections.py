# SPDX-License-Identifier: Apache-2.0
"""What changes a connection from its first packet on works with the bypass as without it."""

from __future__ import annotations

import contextlib
import socket

import pytest
from flow import status
from paths import BYPASSES, ruleset
from standing import entered

from vxlane.lab.waiting import wait_for

CLIENT, SERVER, NODE = "node1-pod1", "node2-pod1", "node2"
PORT, PROXY = 5005, 9999
ROUNDS, PATIENCE = 50, 1.0  # seconds
_IP_TRANSPARENT = 19

HELPER = """\
*raw
-A PREROUTING -p tcp --dport 5005 -j CT --helper ftp
COMMIT
*filter
:judge - [0:0]
-I FORWARD -d 10.42.2.0/24 -p tcp -j judge
-A judge -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A judge -p tcp --dport 5005 -j ACCEPT
-A judge -j DROP
COMMIT
"""
SYNPROXY = """\
*raw
-A PREROUTING -p tcp --dport 5005 --syn -j CT --notrack
COMMIT
*filter
:judge - [0:0]
-I FORWARD -p tcp --dport 5005 -j judge
-A judge -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --wscale 7 \
--mss 1360
-A judge -m conntrack --ctstate INVALID -j DROP
COMMIT
"""
TPROXY = """\
*mangle
-A PREROUTING -p tcp -m socket --transparent -j MARK --set-mark 1
-A PREROUTING -i flannel.1 -p tcp --dport 5005 -j TPROXY --on-port 9999 --tproxy-mark 1
COMMIT
"""


@pytest.fixture(params=[False, True], ids=["kernel-path", "bypass"])
def lab(pair, request):
    """The same on the kernel path alone, and with the bypass."""
    for node in ("node1", "node2"):
        pair.ask(node, op="bypass", enabled=request.param)
    return pair


@contextlib.contextmanager
def rules(lab, text):
    """Put rules of iptables on the server's node while the block runs."""
    before = lab.exec(NODE, "iptables-save").stdout
    with ruleset(lab, NODE):
        lab.exec(NODE, "iptables-restore", "--noflush", "--wait", stdin=text)
    wait_for(lambda: status(lab, NODE)["mechanisms"], "the mechanism")
    with lab.verdicts(NODE) as seen:
        yield
    assert {key for key in seen if key[1] in BYPASSES} == set()
    with ruleset(lab, NODE):
        for table in ("raw", "mangle"):
            lab.exec(NODE, "iptables", "-w", "-t", table, "-F")
        lab.exec(NODE, "iptables-restore", "--wait", stdin=before)


def tcp(lab, name, *, is_transparent=False):
    """A TCP socket in a namespace of the lab."""
    with entered(lab.netns(name)):
        made = socket.socket()
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_transparent:
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    return made


def listening(lab, name, port, **more):
    """One that listens."""
    made = tcp(lab, name, **more)
    made.bind(("0.0.0.0", port))
    made.listen()
    return made


def exchange(client, server):
    """Lines both ways, each of which arrives."""
    for _ in range(ROUNDS):
        client.sendall(b"NOOP\r\n")
        assert server.recv(100) == b"NOOP\r\n"
        server.sendall(b"200 ok\r\n")
        assert client.recv(100) == b"200 ok\r\n"


def test_a_helper_opens_the_data_channel(lab):
    """FTP's passive mode: the helper reads the port from a control connection that is old."""
    with rules(lab, HELPER), contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(lab, SERVER, PORT))
        client = stack.enter_context(tcp(lab, CLIENT))
        client.connect((lab.address(SERVER), PORT))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(PATIENCE)
        exchange(client, server)
        data = stack.enter_context(listening(lab, SERVER, 0))
        high, low = divmod(data.getsockname()[1], 256)
        host = lab.address(SERVER).replace(".", ",")
        server.sendall(f"227 Entering Passive Mode ({host},{high},{low}).\r\n".encode())
        assert client.recv(100).startswith(b"227")
        channel = stack.enter_context(tcp(lab, CLIENT))
        channel.connect((lab.address(SERVER), data.getsockname()[1]))
        stack.enter_context(data.accept()[0])


def test_synproxy(lab):
    """A connection whose sequence numbers SYNPROXY shifts carries data both ways."""
    lab.exec(NODE, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    with rules(lab, SYNPROXY), contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(lab, SERVER, PORT))
        client = stack.enter_context(tcp(lab, CLIENT))
        client.connect((lab.address(SERVER), PORT))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(PATIENCE)
        exchange(client, server)


def test_a_connection_outlives_the_rule(lab):
    """A connection that SYNPROXY has shifted goes on when SYNPROXY's rules are gone."""
    lab.exec(NODE, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    with contextlib.ExitStack() as stack:
        with rules(lab, SYNPROXY):
            listener = stack.enter_context(listening(lab, SERVER, PORT))
            client = stack.enter_context(tcp(lab, CLIENT))
            client.connect((lab.address(SERVER), PORT))
            server = stack.enter_context(listener.accept()[0])
            server.settimeout(PATIENCE)
            exchange(client, server)
        assert {each["where"] for each in status(lab, NODE)["mechanisms"]} == {"conntrack"}
        exchange(client, server)
        exchange(client, server)


def test_tproxy_that_keeps_the_clients_port(lab):
    """A proxy that speaks to the server as the client does, address and port, is not bypassed."""
    for command in (
        "ip rule add fwmark 1 lookup 100",
        "ip route add local default dev lo table 100",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.cni0.rp_filter=0",
    ):
        lab.exec(NODE, *command.split(), check=False)
    with rules(lab, TPROXY), contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(lab, SERVER, PORT))
        proxy = stack.enter_context(listening(lab, NODE, PROXY, is_transparent=True))
        client = stack.enter_context(tcp(lab, CLIENT))
        client.connect((lab.address(SERVER), PORT))
        near = stack.enter_context(proxy.accept()[0])
        far = stack.enter_context(tcp(lab, NODE, is_transparent=True))
        far.bind(client.getsockname())
        far.connect((lab.address(SERVER), PORT))
        server = stack.enter_context(listener.accept()[0])
        for each in (near, server):
            each.settimeout(PATIENCE)
        assert server.getpeername() == client.getsockname()
        exchange(far, server)
        exchange(client, near)
        exchange(far, server)
