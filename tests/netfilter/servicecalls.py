# SPDX-License-Identifier: Apache-2.0
"""What the tests of Services have in common: who calls, from where, and how much is nearly all."""

from __future__ import annotations

import itertools

import pytest
from dialogue import Call
from kubeservice import PORT as SERVICE_PORT
from kubeservice import VIRTUAL

CLIENT = "node1-pod1"
NEARLY_ALL = 0.95
"""On a busy machine TCP repeats something, by another way then, or a connection is renewed."""
BACKEND_AGE = 0.9
"""Seconds after which a translated datagram goes through netfilter once more."""
PORTS = itertools.count(5001)
"""Source ports that no other test has left a record of."""
BACKENDS = pytest.mark.parametrize(
    "backend", ["node2-pod1", "node1-pod2"], ids=["another-node", "same-node"]
)


def service(**more):
    """A call to the Service."""
    return Call(VIRTUAL, SERVICE_PORT, **more)
