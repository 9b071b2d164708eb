"""What the tests of this folder share: kube-proxy on a node, and who outside talks to it."""

from __future__ import annotations

import contextlib

import pytest
from dialogue import OUTSIDE, PORT
from kubeproxy import MODES, Service

from vxlane.loader.lab import namespaces, underlay
from vxlane.loader.lab.waiting import wait_for


@contextlib.contextmanager
def ruleset(lab, node):
    """Change netfilter's rules inside; return when the node's agent has taken notice."""
    with lab.maps(node) as maps:
        epoch = maps.settings().epoch
        yield
        wait_for(lambda: maps.settings().epoch != epoch, f"{node}'s agent to see its rules change")


@pytest.fixture(params=sorted(MODES))
def kube_proxy(lab, request):
    """Start kube-proxy on a node, for one test; its backends are addresses of pods."""
    running = []

    def start(node, *, backends):
        running.append((node, MODES[request.param](lab, node)))
        with ruleset(lab, node):
            running[-1][1].install(Service(tuple(backends), PORT))
        return running[-1][1]

    yield start
    for node, proxy in running:
        with ruleset(lab, node):
            proxy.remove()


@pytest.fixture(scope="session")
def outside(lab):
    """A host on the nodes' network that is no node: its name. It goes with the lab."""
    name = f"{lab.lab.name}-outside"
    namespaces.create(name)
    underlay.plug(lab.lab.name, name, port="outside")
    underlay.ip(name, f"address add {OUTSIDE}/24 dev eth0")
    return "outside"
