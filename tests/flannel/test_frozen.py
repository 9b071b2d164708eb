# SPDX-License-Identifier: Apache-2.0
"""An agent is gone, and then a peer becomes another: the old maps mislead nobody for long."""

from __future__ import annotations

import signal

import pytest
from golden import shown
from steps import silence

BOUND = 3.0
"""Seconds for which an old map may be sent by, whoever is dead."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
def test_a_peer_gets_another_mac_while_the_agent_is_gone(flannel, number):
    """Packets reach a peer with a new VTEP MAC at most 3 s after the kernel path's do.

    Node3 sends by the kernel path alone; it and node1 hear of the change from the same etcd.
    """
    flannel.start_agent("node1", mode="adopt")

    def end_and_change() -> None:
        flannel.end_agent("node1", number=number)
        change_mac(flannel, "node2")

    seen = silence(flannel, end_and_change)
    assert seen.bypassed < seen.by_kernel + BOUND
    assert seen.control_lost == 0


def change_mac(cluster, name):
    """Have a node's flanneld start without its device, as after a reboot: the MAC is another."""
    before = shown(cluster, name)["device"]["address"]
    cluster.end_flanneld(name)
    cluster.sh(name, "ip link del flannel.1")
    cluster.start_flanneld(name)
    cluster.await_routes(name)
    assert shown(cluster, name)["device"]["address"] != before
