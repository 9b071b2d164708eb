# SPDX-License-Identifier: Apache-2.0
"""Datagrams as of DNS: many sockets with a question or two each, or one with many."""

from __future__ import annotations

import contextlib
import socket

from dialogue import PORT, Call, answered, call, serving
from kubeservice import PORT as SERVICE_PORT
from kubeservice import VIRTUAL
from paths import bypassed, came
from servicecalls import BACKENDS, CLIENT, NEARLY_ALL, PORTS, service
from taps import socket_in

MANY = 100


def many_ports():
    """The first of as many ports as there are sockets, none used before."""
    return min(next(PORTS) for _ in range(MANY))


@BACKENDS
def test_one_question_each(lab, kube_proxy, backend):
    """A socket that asks once is answered by netfilter alone."""
    kube_proxy("node1", backends=[lab.address(backend)])
    # More at once than the server's buffer holds would be lost, on any network.
    wanted = service(protocol="udp", count=MANY, at_once=20, port=many_ports())
    with serving(lab, backend), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, wanted)
    answered(reports, wanted)
    assert bypassed(seen) == {}
    assert seen["from_pod", "no_peer"] == MANY


@BACKENDS
def test_two_questions_each(lab, kube_proxy, backend):
    """A socket's second question is bypassed, and its answer."""
    kube_proxy("node1", backends=[lab.address(backend)])
    wanted = service(protocol="udp", count=MANY, at_once=5, rounds=2, port=many_ports())
    with serving(lab, backend), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, wanted)
    answered(reports, wanted)
    assert {talk[1:3] for talk in reports[0].talks} == {
        (lab.address(CLIENT), wanted.port + number) for number in range(MANY)
    }
    assert seen["from_pod", "no_peer"] == MANY
    out, back = seen["from_pod", "nat"], seen["from_nic", "nat"]
    aged = sum(came(seen, entrance, "flow_aged") for entrance in ("from_pod", "from_nic"))
    assert out + back + aged == 2 * MANY
    # A busy machine may take longer than BACKEND_AGE between a socket's two questions.
    assert out + back >= NEARLY_ALL * 2 * MANY


@contextlib.contextmanager
def asking(lab):
    """A new socket of the client's for the Service, at a port of its own."""
    with socket_in(lab.netns(CLIENT), socket.SOCK_DGRAM) as client:
        client.bind((lab.address(CLIENT), next(PORTS)))
        client.settimeout(5)
        client.connect((VIRTUAL, SERVICE_PORT))
        yield client


@BACKENDS
def test_one_way(lab, kube_proxy, backend):
    """Datagrams that nobody answers are bypassed from the third on: one sighting is not enough."""
    kube_proxy("node1", backends=[lab.address(backend)])
    with (
        socket_in(lab.netns(backend), socket.SOCK_DGRAM) as server,
        asking(lab) as client,
        lab.verdicts("node1") as seen,
    ):
        server.bind(("0.0.0.0", PORT))
        server.settimeout(5)
        for number in range(20):
            client.send(b"%d" % number)
            assert server.recvfrom(9) == (b"%d" % number, client.getsockname())
    assert seen["from_pod", "no_peer"] == seen["from_pod", "flow_half"] == 1
    assert came(seen, "from_pod", "nat", "flow_aged") == 18
    assert seen["from_pod", "nat"] > 9


def test_two_at_once(lab, kube_proxy):
    """A resolver's two questions at once (A and AAAA), of new sockets all, are each answered."""
    backend, name = "node2-pod1", 64
    kube_proxy("node1", backends=[lab.address(backend)])
    with serving(lab, backend), lab.verdicts("node1") as seen:
        for _ in range(MANY):
            with asking(lab) as client:
                questions = {kind * name for kind in (b"A", b"AAAA")}
                for question in questions:
                    client.send(question)
                answers = {client.recv(2000).partition(b"\n")[2] for _ in questions}
            assert answers == questions
    # Both are on their way before an answer, or a second sighting, tells more of the first.
    assert seen["to_nic", "translated"] >= MANY
    assert set(bypassed(seen)) <= {("from_pod", "nat"), ("from_nic", "nat")}


@BACKENDS
def test_headless(lab, kube_proxy, backend):
    """A name that leads to the pods themselves makes direct flows, beside the Service's rules."""
    proxy = kube_proxy("node1", backends=[lab.address(backend)])
    common = {"rounds": 50, "pause": 0.01}
    calls = [
        Call(lab.address(backend), protocol="udp", port=next(PORTS), **common),
        Call(lab.address(backend), **common),
    ]
    with serving(lab, backend), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, *calls)
    answered(reports, *calls)
    near = backend.startswith("node1")
    far_ways = {("from_pod", "encapsulated"), ("from_nic", "decapsulated")}
    ways = {("from_pod", "switched")} if near else far_ways
    assert set(bypassed(seen)) == ways
    assert min(seen[way] for way in ways) >= NEARLY_ALL * 2 * 49
    assert proxy.invalid() == 0
