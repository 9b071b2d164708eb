# SPDX-License-Identifier: Apache-2.0
"""conntrack's entries of Services' flows open, close and age as they would without a bypass."""

from __future__ import annotations

import contextlib
import re
import socket

import pytest
from dialogue import answered, call, serving
from kubeservice import PORT as SERVICE_PORT
from kubeservice import VIRTUAL
from paths import bypassed
from servicecalls import BACKENDS, CLIENT, PORTS, service
from test_conntrack import NODES, alike, left
from test_silence import connection, entry, has_long_timeout, speak

from vxlane.lab.waiting import wait_for

SHORT = 200
EVERY_WAY = pytest.mark.parametrize(
    "masquerade_all", [False, True], ids=["plain", "masquerade-all"]
)


@pytest.fixture
def virtual(lab, kernel_lab, kube_proxy):
    """A Service of both labs in front of a pod, on both nodes; what was dropped as INVALID."""

    def start(backend, **options):
        proxies = [
            kube_proxy(node, backends=[one.address(backend)], lab=one, **options)
            for one in (lab, kernel_lab)
            for node in NODES
        ]
        return lambda: [proxy.invalid() for proxy in proxies]

    return start


@EVERY_WAY
@BACKENDS
def test_short_connections(lab, kernel_lab, virtual, backend, masquerade_all):
    """Bypassed connections by a Service leave the entries that they leave without vxlane."""
    invalid = virtual(backend, masquerade_all=masquerade_all)
    wanted = service(count=SHORT, at_once=50, rounds=3, port=10000)
    with lab.verdicts("node1") as seen:
        ours = left(lab, backend, wanted)
    assert seen["from_pod", "nat"] >= 3 * SHORT
    theirs = left(kernel_lab, backend, wanted)
    assert theirs["node1"] == {"TIME_WAIT": SHORT}
    assert alike(ours, theirs)
    assert invalid() == [0] * 4


@EVERY_WAY
@BACKENDS
def test_resets(lab, kernel_lab, virtual, backend, masquerade_all):
    """Bypassed connections by a Service that either side resets are closed in conntrack."""
    invalid = virtual(backend, masquerade_all=masquerade_all)
    common = {"count": SHORT, "at_once": 50, "rounds": 3}
    by_client = service(end="client resets", port=10000, **common)
    by_server = service(end="server resets", port=20000, **common)
    with lab.verdicts("node1") as seen:
        ours = left(lab, backend, by_client, by_server)
    assert seen["from_pod", "nat"] >= 3 * 2 * SHORT
    theirs = left(kernel_lab, backend, by_client, by_server)
    assert theirs["node1"] == {"CLOSE": 2 * SHORT}
    assert alike(ours, theirs)
    assert invalid() == [0] * 4


@pytest.mark.parametrize("first", ["server", "client"])
def test_silence(quick_lab, kernel_lab, kube_proxy, first):
    """A connection by a Service that fell silent is kept for five days, whoever spoke last."""
    for lab in (kernel_lab, quick_lab):
        kube_proxy("node1", backends=[lab.address("node2-pod1")], lab=lab)
        with (
            connection(lab, to=(VIRTUAL, SERVICE_PORT)) as (client, server),
            lab.verdicts("node1") if lab is quick_lab else contextlib.nullcontext({}) as seen,
        ):
            speak(*((server, client) if first == "server" else (client, server)), times=5)
            wait_for(
                lambda lab=lab, client=client: has_long_timeout(lab, client), "timeout", seconds=10
            )
        if lab is quick_lab:
            assert {key[1] for key in bypassed(seen)} == {"nat"}


@BACKENDS
def test_own_reset(lab, virtual, backend):
    """A RST after a silence closes the entries of a bypassed connection by a Service."""
    invalid = virtual(backend)
    with connection(lab, backend, (VIRTUAL, SERVICE_PORT)) as (client, server):
        with lab.verdicts("node1") as seen:
            speak(server, client, 5)
            speak(client, server, 5)
        assert seen["from_pod", "nat"] > 0
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()

        def are_closed():
            return {entry(lab, node, client, backend)[0] for node in NODES} <= {"CLOSE", None}

        wait_for(are_closed, "the entries to close")
    assert invalid() == [0] * 4


def test_datagrams(lab, kernel_lab, kube_proxy):
    """The entry of a bypassed flow of datagrams is an assured one, with all of its time left."""
    shown, port = [], next(PORTS)
    wanted = service(protocol="udp", rounds=150, pause=0.02, port=port)
    for one in (kernel_lab, lab):
        kube_proxy("node1", backends=[one.address("node2-pod1")], lab=one)
        with serving(one, "node2-pod1"):
            answered(call(one, CLIENT, wanted), wanted)
        argv = ["conntrack", "-L", "-p", "udp", "--orig-port-src", str(port)]
        shown.append(one.exec("node1", *argv).stdout)
    theirs, ours = shown
    # An entry gets the long timeout, 120 s, by what it sees two seconds after it was made.
    assert all(int(re.search(r"^udp +17 (\d+)", one)[1]) > 100 for one in shown)
    assert "[ASSURED]" in theirs
    assert without_time(ours) == without_time(theirs)


def without_time(shown):
    """An entry but for the time that it has left and what differs between labs."""
    return re.sub(r"^udp +17 \d+|mark=\d+|use=\d+", "", shown).split()
