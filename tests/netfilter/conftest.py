# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: kube-proxy on a node, and who outside talks to it."""

from __future__ import annotations

import pytest
from dialogue import OUTSIDE, PORT
from kubeproxy import MODES, KubeProxies
from paths import REVALIDATE

from vxlane.lab import lab as labs
from vxlane.lab import namespaces, underlay


@pytest.fixture(params=sorted(MODES))
def kube_proxy(lab, request):
    """Start kube-proxy on nodes, for one test; its backends are addresses of pods."""
    proxies = KubeProxies(request.param, lab, PORT)
    yield proxies
    proxies.end()


@pytest.fixture(scope="session")
def outside(lab):
    """A host on the nodes' network that is no node: its name. It goes with the lab."""
    name = f"{lab.lab.name}-outside"
    namespaces.create(name)
    underlay.plug(lab.lab.name, name, port="outside")
    underlay.ip(name, f"address add {OUTSIDE}/24 dev eth0")
    return "outside"


@pytest.fixture(scope="session")
def quick_lab(lab):
    """Two nodes whose agents have every flow go through netfilter again after 1 s."""
    name = f"{lab.lab.name}-quick"
    options = ["--revalidate", str(REVALIDATE)]
    made = labs.up(name, nodes=2, pods_per_node=2, kernel_only=0, agent_options=options)
    yield type(lab)(made)
    labs.down(name)


@pytest.fixture(scope="session")
def kernel_lab(lab):
    """Two nodes without vxlane."""
    made = labs.up(f"{lab.lab.name}-kernel", nodes=2, pods_per_node=2, kernel_only=2)
    yield type(lab)(made)
    labs.down(made.name)
