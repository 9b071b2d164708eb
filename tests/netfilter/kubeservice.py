# SPDX-License-Identifier: Apache-2.0
"""What a Service is to kube-proxy, whatever mode it runs in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

NETWORK = "10.42.0.0/16"
VIRTUAL, SECOND = "10.96.0.10", "10.96.0.11"
PORT = 80
NODE_PORT = 30080
PROTOCOLS = ("tcp", "udp")
AFFINITY = 10800
"""Seconds for which session affinity holds, as Kubernetes has it by default."""


@dataclass(frozen=True, slots=True)
class Service:
    """default/NAME: `virtual`:80 and `node_port`, TCP and UDP, for `backends` at `port`.

    Backends are addresses.
    """

    backends: tuple[str, ...]
    port: int
    name: str = "web"
    virtual: str = VIRTUAL
    node_port: int = NODE_PORT
    affinity: bool = False
    """Whether a client stays with the backend that it had first (sessionAffinity: ClientIP)."""


def digest(*words):
    """What kube-proxy tells chains apart by."""
    return hashlib.sha256("".join(words).encode()).hexdigest()[:16].upper()


def forget(lab, node, service, backend):
    """Delete conntrack's UDP entries of a backend that has gone, as kube-proxy does."""
    # kube-proxy does it once its rules are written. Nothing to delete is no error there either.
    argv = ["conntrack", "-D", "-p", "udp", "--orig-dst", service.virtual, "--dst-nat", backend]
    lab.exec(node, *argv, check=False)
