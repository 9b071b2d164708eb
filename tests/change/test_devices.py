# SPDX-License-Identifier: Apache-2.0
"""Devices go down, come up, vanish and are made again under traffic."""

from __future__ import annotations

import pytest
from abreast import abreast
from rig import ROUNDS, ifindex, talk

from vxlane.lab import underlay
from vxlane.lab.underlay import ip
from vxlane.lab.waiting import wait_for


@pytest.fixture
def both(pair):
    """Traffic between the two nodes by either path."""
    with abreast(pair) as made:
        yield made


def test_nic_down_and_up(pair, both):
    """While the NIC is down nothing is bypassed towards it; after that all is as before."""
    node = pair.netns("node1")

    def interrupt():
        ip(node, "link set eth0 down")
        wait_for(lambda: both.by_kernel[0].silence > 0.5, "silence")
        with pair.verdicts("node1") as seen:
            wait_for(lambda: both.bypassed[0].silence > 1.0, "silence")
        ip(node, "link set eth0 up")
        assert seen["from_pod", "encapsulated"] == 0
        assert seen["from_pod", "flow_withdrawn"] > 0

    both.survive(interrupt)


def test_nic_replaced(pair, both):
    """The NIC vanishes, and the VXLAN device with it; all is as before on another NIC."""
    node = pair.netns("node1")

    def replace():
        ip(node, "link del eth0")
        underlay.plug(pair.lab.name, node, port="node1")
        ip(node, f"address add {pair.address('node1')}/24 dev eth0")
        # Or it would be sent to the MAC that is no more for as long as ARP takes.
        ip(pair.netns("node2"), "neighbour flush dev eth0")

    both.survive(replace)


def test_overlay_device_deleted(pair, both):
    """flannel.1 is deleted by hand and made again; flows are learned anew from the new device.

    So are new ones.
    """
    node = pair.netns("node1")
    before = ifindex(node, "flannel.1")
    both.survive(lambda: ip(node, "link del flannel.1"))
    assert ifindex(node, "flannel.1") != before
    fresh = talk(both.traffic, pair, "node1-pod1", "node2-pod1")
    both.traffic.begin()
    with pair.verdicts("node1", "node2") as seen:
        both.traffic.exchange(ROUNDS)
    assert seen["from_pod", "encapsulated"] == 6 * ROUNDS
    assert fresh.owed == 0
