# SPDX-License-Identifier: Apache-2.0
"""Whichever backend netfilter chose for a flow, the bypass keeps it, until the backend goes."""

from __future__ import annotations

import contextlib
import time

import pytest
from dialogue import PORT, answered, beating, call, hearing, serving
from kubeservice import PORT as SERVICE_PORT
from kubeservice import VIRTUAL, Service, forget
from paths import bypassed, came, ruleset
from servicecalls import BACKEND_AGE, CLIENT, NEARLY_ALL, PORTS, service

NAMES = ("node2-pod1", "node2-pod2", "node1-pod2")
MANY = 40
LATE = 1.0
"""Seconds for which a datagram may still go to a backend that has gone: BACKEND_AGE, and some."""


@contextlib.contextmanager
def serving_all(lab, names):
    """Servers in pods."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(serving(lab, name))
        yield


def test_several(lab, kube_proxy):
    """Each of 80 flows has one of three backends, of this node or another, and is bypassed."""
    proxy = kube_proxy("node1", backends=map(lab.address, NAMES))
    calls = [service(protocol=kind, count=MANY, rounds=20, pause=0.01) for kind in ("tcp", "udp")]
    with serving_all(lab, NAMES), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, *calls)
    answered(reports, *calls)
    # A flow with two backends would be an error. That one of three is never chosen: 1 in 3 million.
    assert reports[0].servers() == reports[1].servers() == set(NAMES)
    assert reports[0].seen_as() == reports[1].seen_as() == {lab.address(CLIENT)}
    near = sum(talk[0] == "node1-pod2" for report in reports for talk in report.talks)
    # A datagram is netfilter's the first time, and once in BACKEND_AGE.
    aged = came(seen, "from_pod", "flow_aged"), came(seen, "from_nic", "flow_aged")
    assert seen["from_pod", "nat"] + aged[0] >= NEARLY_ALL * 19 * (2 * MANY + near)
    assert seen["from_nic", "nat"] + aged[1] >= NEARLY_ALL * 19 * (2 * MANY - near)
    assert set(bypassed(seen)) == {("from_pod", "nat"), ("from_nic", "nat")}
    assert proxy.invalid() == 0


def test_affinity(lab, kube_proxy):
    """All flows of a client have the same backend where the Service has session affinity."""
    backends = ("node2-pod1", "node2-pod2")
    proxy = kube_proxy("node1", backends=map(lab.address, backends), affinity=True)
    calls = [service(protocol=kind, count=MANY, rounds=10, pause=0.01) for kind in ("tcp", "udp")]
    clients = (CLIENT, "node1-pod2")
    with serving_all(lab, backends), lab.verdicts("node1") as seen:
        # The second time the client has a backend before it connects.
        all_reports = [[call(lab, client, *calls) for _ in range(2)] for client in clients]
    for reports in all_reports:
        answered([*reports[0], *reports[1]], *calls, *calls)
        for first, second in zip(*reports, strict=True):
            # Of the first flows all at once some may be made before the first is remembered.
            assert len(first.servers() & second.servers()) == len(second.servers()) == 1
    assert came(seen, "from_pod", "nat", "flow_aged") >= NEARLY_ALL * 9 * 8 * MANY
    assert proxy.invalid() == 0


def test_datagrams_are_seen_again(lab, kube_proxy):
    """Of a bypassed flow's datagrams netfilter sees one a second, and keeps its entry for that."""
    backend = "node2-pod1"
    kube_proxy("node1", backends=[lab.address(backend)])
    wanted = service(protocol="udp", rounds=100, pause=0.03, port=next(PORTS))
    begun = time.monotonic()
    with serving(lab, backend), lab.verdicts("node1") as seen:
        reports = call(lab, CLIENT, wanted)
    answered(reports, wanted)
    for entrance in ("from_pod", "from_nic"):
        # The pauses alone take three seconds.
        assert 2 <= seen[entrance, "flow_aged"] <= (reports[0].ended - begun) / BACKEND_AGE
    assert seen["from_pod", "nat"] + seen["from_pod", "flow_aged"] == 99


def moves(lab, kube_proxy, old, *, answers):
    """How long datagrams went to a backend after its entries were deleted, and what was bypassed.

    kube-proxy changes its rules first, and deletes entries then: the agent has long noticed the
    change, and the flow is bypassed again, when its entry goes.
    """
    new = "node2-pod2"
    gone, service = (Service((lab.address(name),), PORT) for name in (old, new))
    proxy = kube_proxy("node1", services=[gone], lab=lab)
    has_agent = lab.agent_pid("node1") is not None
    with (
        hearing(lab, old, PORT, answers=answers) as at_old,
        hearing(lab, new, PORT, answers=answers) as at_new,
        beating(lab, CLIENT, "udp", VIRTUAL, SERVICE_PORT, source=next(PORTS)),
    ):
        at_old.await_more()
        with ruleset(lab, "node1"):
            proxy.change(service)
        at_old.await_more()
        with counting(lab, has_agent) as before:
            at_old.await_more()
        assert not at_new.all()
        forget(lab, "node1", service, lab.address(old))
        moment = time.monotonic()
        at_new.await_more()
        with counting(lab, has_agent) as after:
            at_new.await_more()
        return at_old.silent_after(moment), before["from_pod", "nat"], after["from_pod", "nat"]


def counting(lab, has_agent):
    """What node1 counts, if it has programs."""
    return lab.verdicts("node1") if has_agent else contextlib.nullcontext({("from_pod", "nat"): 0})


@pytest.mark.parametrize("answers", [False, True], ids=["one-way", "answered"])
@pytest.mark.parametrize("old", ["node2-pod1", "node1-pod2"], ids=["another-node", "same-node"])
def test_backend_that_goes(lab, kernel_lab, kube_proxy, old, answers):
    """A flow of datagrams leaves the backend that went, a second later than on a stock node.

    It is bypassed until then, and again to its new backend.
    """
    theirs, _, _ = moves(kernel_lab, kube_proxy, old, answers=answers)
    ours, before, after = moves(lab, kube_proxy, old, answers=answers)
    assert ours <= theirs + LATE
    assert before > 0
    assert after > 0
