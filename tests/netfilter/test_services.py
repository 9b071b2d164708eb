# SPDX-License-Identifier: Apache-2.0
"""A Service's flows are bypassed as netfilter translates them, beside direct ones."""

from __future__ import annotations

import time

from dialogue import Call, answered, call, calling, serving
from paths import BYPASSES, UNSTAMPED, bypassed, came, judged
from servicecalls import BACKEND_AGE, BACKENDS, CLIENT, NEARLY_ALL, PORTS, service

MANY, COUNT = 50, 50


@BACKENDS
def test_connections(lab, kube_proxy, backend):
    """100 connections by the Service, short and long, and 100 straight to its backend: bypassed."""
    proxy = kube_proxy("node1", backends=[lab.address(backend)])
    kinds = [{"count": MANY, "rounds": 3}, {"count": MANY, "rounds": 25, "pause": 0.02}]
    by_service = [service(**kind) for kind in kinds]
    directly = [Call(lab.address(backend), **kind) for kind in kinds]
    calls = [*by_service, *directly]
    with serving(lab, backend), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, *calls)
    answered(reports, *calls)
    assert set.union(*(report.servers() for report in reports)) == {backend}
    assert set.union(*(report.seen_as() for report in reports)) == {lab.address(CLIENT)}
    # Each question is a packet of the client's, and each answer one of the backend's.
    questions = MANY * (3 + 25)
    if backend.startswith("node1"):
        ways = {("from_pod", "nat"): 2, ("from_pod", "switched"): 2}
    else:
        ways = {("from_pod", "nat"): 1, ("from_pod", "encapsulated"): 1}
        ways |= {("from_nic", "nat"): 1, ("from_nic", "decapsulated"): 1}
    assert set(bypassed(seen)) == set(ways)
    for way, times in ways.items():
        assert seen[way] >= NEARLY_ALL * times * questions
    # Of each connection by the Service the ACK of the SYN-ACK, and a FIN that is sent again.
    assert seen["from_pod", "no_peer"] <= 3 * 2 * MANY
    assert proxy.invalid() == 0


@BACKENDS
def test_datagrams(lab, kube_proxy, backend):
    """Of 50 questions to the Service, and of their answers, all are bypassed but the first."""
    kube_proxy("node1", backends=[lab.address(backend)])
    wanted = service(protocol="udp", rounds=COUNT, port=next(PORTS))
    begun = time.monotonic()
    with serving(lab, backend), lab.verdicts("node1") as seen, lab.verdicts("node2") as there:
        reports = call(lab, CLIENT, wanted)
    answered(reports, wanted)
    assert reports[0].talks[0][:3] == (backend, lab.address(CLIENT), wanted.port)
    # A datagram is netfilter's again when the last one that it saw is too old, each way.
    aged = came(seen, "from_pod", "flow_aged") + came(seen, "from_nic", "flow_aged")
    assert aged <= 2 * (reports[0].ended - begun) / BACKEND_AGE
    entrance = "from_pod" if backend.startswith("node1") else "from_nic"
    first = {
        ("from_pod", "no_peer"): 1,
        ("to_pod", "learned"): 1 + came(seen, entrance, "flow_aged"),
    }
    moved = {key: n for key, n in judged(seen).items() if key[1] != "flow_aged"}
    if backend.startswith("node1"):
        # Question and answer come out at a pod. The question's entrance knew no pod behind it.
        first |= {("to_pod", "translated"): 1, ("from_pod", "flow_half"): 1}
        assert moved == first | {("from_pod", "nat"): 2 * (COUNT - 1) - aged}
    else:
        out = came(seen, "from_pod", "flow_aged")
        first |= {("to_nic", "translated"): 1, ("from_nic", "flow_unknown"): 1}
        first |= {("to_nic", "learned"): out} if out else {}
        assert moved == first | {
            ("from_pod", "nat"): COUNT - 1 - out,
            ("from_nic", "nat"): COUNT - 1 - (aged - out),
        }
        # The backend's node sees a plain flow, which it is there.
        assert {key[1] for key in bypassed(there)} == {"encapsulated", "decapsulated"}


def test_to_itself(lab, kube_proxy):
    """A pod that is its own backend hears itself as its gateway, by netfilter alone."""
    proxy = kube_proxy("node1", backends=[lab.address(CLIENT)])
    calls = [service(count=MANY, rounds=5), service(protocol="udp", rounds=COUNT)]
    before = lab.shares("node1")["from_pod"]
    with serving(lab, CLIENT), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, *calls)
    after = lab.shares("node1")["from_pod"]
    answered(reports, *calls)
    assert reports[0].seen_as() == reports[1].seen_as() == {"10.42.1.1"}
    # Questions and answers alike enter once, and come out of the kernel path as something else.
    data, control = ("from_pod", "no_peer"), ("from_pod", "tcp_control")
    out = ("to_pod", "translated"), ("to_pod", "changed")
    assert set(judged(seen)) == {data, control, *out}
    # But for a FIN, of which nothing is noted.
    came_out = seen[out[0]] + seen[out[1]] + seen[UNSTAMPED]
    assert came_out >= seen[data] + seen[control]
    assert seen[data] >= 2 * (MANY * 5 + COUNT)
    assert after["bypassed"] == before["bypassed"]
    assert after["packets"] - before["packets"] == seen[control] + seen[out[0]]
    assert proxy.invalid() == 0


@BACKENDS
def test_nobody_else_is_translated(lab, kube_proxy, backend):
    """Beside a Service's flow that is bypassed, other pods' flows to its backend are direct."""
    kube_proxy("node1", backends=[lab.address(backend)])
    port = next(PORTS)
    other = "node2-pod2"
    common = {"port": port, "rounds": COUNT, "pause": 0.02}
    with (
        serving(lab, backend),
        calling(lab, CLIENT, service(**common), service(protocol="udp", **common)) as translated,
        lab.verdicts("node2") as seen,
    ):
        direct = call(
            lab,
            other,
            *(Call(lab.address(backend), protocol=kind, **common) for kind in ("tcp", "udp")),
        )
    assert [report.errors for report in translated + direct] == [{}] * 4
    assert {report.talks[0][1:3] for report in translated} == {(lab.address(CLIENT), port)}
    assert {report.talks[0][1:3] for report in direct} == {(lab.address(other), port)}
    assert {key[1] for key in bypassed(seen)} <= BYPASSES - {"nat"}
    assert came(seen, "from_pod", "encapsulated", "switched") >= NEARLY_ALL * 2 * COUNT
