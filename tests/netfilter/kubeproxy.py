# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's rules for Services, as its iptables and its nftables mode write them.

Names, order, marks and comments are those of kube-proxy 1.31. Both modes here drop what conntrack
takes for INVALID, as kube-proxy does unless nf_conntrack_tcp_be_liberal was on when it started.
"""

from __future__ import annotations

import contextlib

from kubeiptables import Iptables
from kubenftables import Nftables
from kubeservice import PORT, Service
from paths import ruleset

MODES = {"iptables": Iptables, "nftables": Nftables}


class KubeProxies:
    """Starts kube-proxy of one mode on nodes of `lab`, and ends each of them."""

    def __init__(self, mode, lab, port):
        self._mode, self._lab, self._port = MODES[mode], lab, port
        self._running = []

    def __call__(self, node, *, backends=(), services=(), lab=None, masquerade_all=False, **more):
        """Start it on a node, for one Service with `backends`, or for several Services.

        `lab`: another one; `more`: what else the Service has.
        """
        lab = lab or self._lab
        proxy = self._mode(lab, node, masquerade_all=masquerade_all)
        self._running.append((lab, node, proxy))
        with ruleset(lab, node):
            proxy.install(*(services or [Service(tuple(backends), self._port, **more)]))
        # As kube-proxy does: an earlier test's client may have had the same port, and its backend
        # would get this one's datagrams.
        lab.exec(node, "conntrack", "-D", "-p", "udp", check=False)
        return proxy

    def end(self):
        """Take the rules of all of them away."""
        for lab, node, proxy in self._running:
            with ruleset(lab, node):
                proxy.remove()


@contextlib.contextmanager
def dropping_invalid(lab, nodes=("node1", "node2")):
    """Run kube-proxy on nodes; what each has dropped as INVALID is there at the end."""
    proxies = [Iptables(lab, node) for node in nodes]
    for node, proxy in zip(nodes, proxies, strict=True):
        with ruleset(lab, node):
            proxy.install(Service(("10.42.2.2",), PORT))
    dropped = []
    try:
        yield dropped
    finally:
        for node, proxy in zip(nodes, proxies, strict=True):
            dropped.append(proxy.invalid())
            with ruleset(lab, node):
                proxy.remove()
