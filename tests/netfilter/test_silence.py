# SPDX-License-Identifier: Apache-2.0
"""What conntrack can't see of a bypassed connection changes neither its end nor its timeout."""

from __future__ import annotations

import contextlib
import re
import socket
import time

import pytest
from dialogue import PORT
from frames import RST, Frame, Tcp, vxlan
from paths import bypassed
from taps import socket_in

from vxlane.lab.waiting import wait_for

NODES = ("node1", "node2")
CLIENT, SERVER, STRANGER = "node1-pod1", "node2-pod1", "node1-pod2"
FIVE_DAYS, UNACKNOWLEDGED = 432_000, 300


@contextlib.contextmanager
def connection(lab, server=SERVER, to=None):
    """Both ends of a TCP connection from CLIENT to a pod; `to`: an address and a port of its."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket_in(lab.netns(server), socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", PORT))
        listener.listen()
        client = stack.enter_context(socket_in(lab.netns(CLIENT), socket.SOCK_STREAM))
        client.settimeout(10)
        client.connect(to or (lab.address(server), PORT))
        accepted = stack.enter_context(listener.accept()[0])
        accepted.settimeout(10)
        yield client, accepted


def speak(speaker, hearer, times):
    """One side speaks, the other hears and says nothing."""
    for _ in range(times):
        speaker.sendall(b"220 at your service\r\n")
        assert hearer.recv(64)


def entry(lab, node, client, server=SERVER):
    """State and remaining seconds of the client's entry; there is one at most.

    To another server it may have had a connection by the same port, which is in TIME_WAIT.
    """
    argv = f"conntrack -L -p tcp -s {lab.address(CLIENT)} --sport {client.getsockname()[1]}"
    argv += f" -r {lab.address(server)} --reply-port-src {PORT}"
    listed = lab.exec(node, *argv.split()).stdout
    found = re.findall(r"^tcp +6 (\d+) (\w+)", listed, re.MULTILINE)
    assert len(found) <= 1
    return next(((state, int(left)) for left, state in found), (None, 0))


def has_long_timeout(lab, client):
    """Whether both nodes keep the entry as that of an acknowledged connection."""
    entries = [entry(lab, node, client) for node in NODES]
    return all(state == "ESTABLISHED" and left > FIVE_DAYS - 100 for state, left in entries)


@pytest.mark.parametrize("first", ["server", "client"])
def test_silence_after_a_bypass(quick_lab, kernel_lab, first):
    """A connection that fell silent is kept for five days, whoever spoke first and last."""
    for lab in (kernel_lab, quick_lab):
        with (
            connection(lab) as (client, server),
            lab.verdicts(*NODES) if lab is quick_lab else (contextlib.nullcontext({})) as seen,
        ):
            speak(*((server, client) if first == "server" else (client, server)), times=5)
            wait_for(
                lambda lab=lab, client=client: has_long_timeout(lab, client), "timeout", seconds=10
            )
        if lab is quick_lab:
            assert bypassed(seen)


def forged(lab, client, sequence):
    """A RST of SERVER's connection in a tunnel, as any pod can send it from a UDP socket."""
    inner = Frame(
        source_mac=lab.node("node1").vtep_mac,
        dest_mac=lab.node("node2").vtep_mac,
        source=lab.pod(CLIENT).address,
        destination=lab.pod(SERVER).address,
        transport=Tcp(source=client.getsockname()[1], dest=PORT, flags=RST, sequence=sequence),
    )
    return vxlan(bytes(inner))


def test_forged_reset(lab):
    """A RST with a guessed sequence number, sent by a third pod, closes no entry."""
    with connection(lab) as (client, server):
        speak(server, client, 5)
        speak(client, server, 5)
        with socket_in(lab.netns(STRANGER), socket.SOCK_DGRAM) as stranger:
            for sequence in (0, 1 << 30, 1 << 31, 3 << 30):
                stranger.sendto(forged(lab, client, sequence), (lab.address("node2"), 8472))
        with lab.verdicts("node2") as seen:
            speak(client, server, 5)
            speak(server, client, 5)
        assert bypassed(seen)
        # The agent reads of resets once a second.
        time.sleep(1.5)
        states = {entry(lab, node, client)[0] for node in NODES}
        assert states == {"ESTABLISHED"}


def test_own_reset(lab):
    """The connection's own RST, after a bypass, closes both entries."""
    with connection(lab) as (client, server):
        speak(server, client, 5)
        speak(client, server, 5)
        port = client.getsockname()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        assert port

        def closed():
            return {entry(lab, node, client)[0] for node in NODES} <= {"CLOSE", None}

        wait_for(closed, "both entries to close", seconds=5)


HALF_CLOSED = 6
"""Seconds that conntrack keeps a half-closed connection whose packets it does not see."""
NOT_FROM_THE_BEGINNING = "FORWARD -p tcp -m conntrack --ctstate NEW ! --syn -j DROP"


@pytest.fixture
def impatient(make_lab):
    """Two nodes whose conntrack forgets half-closed connections soon, and picks up none midway."""
    lab = make_lab(nodes=2, pods_per_node=1, kernel_only=0)
    for node in NODES:
        for state in ("close_wait", "fin_wait"):
            setting = f"net.netfilter.nf_conntrack_tcp_timeout_{state}={HALF_CLOSED}"
            lab.exec(node, "sysctl", "-qw", setting)
        lab.exec(node, "iptables", "-w", "-I", *NOT_FROM_THE_BEGINNING.split())

    def is_applied():
        return all(
            lab.vxlane(node, "status")["programs"]["revalidate_seconds"] == HALF_CLOSED / 3
            for node in NODES
        )

    # The agents read sysctls every 10 s, for these have no events.
    wait_for(is_applied, "the agents to follow conntrack's timeouts", seconds=20)
    return lab


def test_a_half_closed_stream(impatient):
    """A stream goes on after the other side's FIN for longer than conntrack would wait."""
    with connection(impatient) as (client, server):
        speak(client, server, 3)
        client.shutdown(socket.SHUT_WR)
        assert server.recv(64) == b""
        ends = time.monotonic() + 2 * HALF_CLOSED
        with impatient.verdicts("node1") as seen:
            while time.monotonic() < ends:
                speak(server, client, 1)
                time.sleep(0.02)
        assert seen["from_nic", "decapsulated"] > 0
        states = {entry(impatient, node, client)[0] for node in NODES}
        assert states <= {"CLOSE_WAIT", "FIN_WAIT"}
