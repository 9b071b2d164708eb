# SPDX-License-Identifier: Apache-2.0
"""What becomes of a pod when the kernel says that its veth, bridge or filters are other now."""

from __future__ import annotations

import dataclasses

import pytest
from podhost import BRIDGE, Node, hooks, pod, veth

from vxlane.datapath.abi import Guard
from vxlane.host.veths import FarEnd
from vxlane.util.dirty import Dirty


def test_a_pod_that_can_be_accelerated_no_more_is_taken_off(node: Node) -> None:
    """Its veth leaves the bridge: map, devmap and hooks are without it, and it stays known."""
    node.pods.add(pod(1))
    node.host.set(veth(1, master=0))
    node.pods.devices_changed({11})
    node.pods.check_changed()
    assert (node.accelerated(), node.veths(), node.host.hooks) == ({}, set(), set())
    assert node.known() == {pod(1).key}


def test_events_about_others_concern_no_pod(node: Node) -> None:
    """Nothing is to be looked at for a device that is no pod's veth or bridge."""
    node.pods.add(pod(1))
    assert node.pods.devices_changed({12, 77}) is False
    assert node.pods.devices_changed({BRIDGE.index}) is True


def test_a_bridge_that_is_the_same_costs_no_look_at_its_pods(node: Node) -> None:
    """It says that it changed with every port that joins."""
    node.pods.add(pod(1))
    node.host.devices.pop(11)
    node.pods.devices_changed({BRIDGE.index})
    node.pods.check_changed()
    assert node.accelerated() == {"10.42.1.1": 11}
    node.host.set(veth(1), dataclasses.replace(BRIDGE, mtu=1300))
    node.pods.devices_changed({BRIDGE.index})
    node.pods.check_changed()
    assert [found.mtu for found in node.maps.pods().values()] == [1300]


def test_a_device_that_is_removed_takes_its_pod_along(node: Node) -> None:
    """At once, for its ifindex may be another's soon; other pods stay."""
    node.pods.add(pod(1))
    node.pods.add(pod(2))
    node.pods.devices_removed({11})
    assert node.accelerated() == {"10.42.1.2": 12}
    assert node.known() == {pod(2).key}


def test_an_ifindex_that_is_used_again_is_the_new_pods(node: Node) -> None:
    """The old pod goes when the new one comes, though the event of its end did not come yet."""
    node.pods.add(pod(1))
    node.host.devices.pop(11)
    node.host.set(veth(3, index=11))
    node.pods.add(pod(3))
    assert node.accelerated() == {"10.42.1.3": 11}
    assert node.known() == {pod(3).key}


def test_filters_of_others_guard_a_pod_and_are_read_once(node: Node) -> None:
    """Until an event is about the veth, or events were lost."""
    node.host.foreign[11] = Guard.TO_POD
    node.pods.add(pod(1))
    node.pods.check(pod(1))
    assert node.guard("10.42.1.1") == Guard.TO_POD
    assert node.host.asked == [11]
    node.host.foreign[11] = Guard(0)
    node.pods.devices_changed({11})
    node.pods.check_changed()
    assert (node.guard("10.42.1.1"), node.host.asked) == (Guard(0), [11, 11])
    node.pods.lost_track()
    node.pods.reconcile()
    assert node.host.asked == [11, 11, 11]


def test_adding_a_pod_reads_its_filters_anew(node: Node) -> None:
    """The plugin's word comes with no event of the device."""
    node.pods.add(pod(1))
    node.host.foreign[11] = Guard.FROM_POD
    node.pods.add(pod(1))
    assert node.guard("10.42.1.1") == Guard.FROM_POD


def test_the_round_reads_filters_too(node: Node) -> None:
    """Nobody tells of a TCX program: each pod's are read anew."""
    node.pods.add(pod(1))
    node.pods.add(pod(2))
    node.host.foreign[12] = Guard.FROM_POD
    assert list(node.pods.resync()) == [Dirty(0), Dirty(0)]
    assert node.guard("10.42.1.2") == Guard.FROM_POD


def test_judged_pods_are_guarded_until_they_are_judged_no_more(node: Node) -> None:
    """By the veth's name; the others are left as they are."""
    node.pods.add(pod(1))
    node.pods.add(pod(2))
    node.pods.judge(frozenset({"veth1"}))
    assert node.guard("10.42.1.1") == Guard.JUDGED
    assert node.guard("10.42.1.2") == Guard(0)
    node.pods.judge(frozenset())
    assert node.guard("10.42.1.1") == Guard(0)


def test_check_of_a_pod_whose_veth_is_another_is_refused(node: Node) -> None:
    """A later device by the same name, with another ifindex and MAC, is not the pod's."""
    node.pods.add(pod(1))
    node.host.devices.pop(11)
    node.host.set(veth(1, index=99, mac="02:00:00:00:99:99"))
    assert node.pods.check(pod(1)) == "its veth veth1 is gone"
    assert (node.accelerated(), node.known()) == ({}, set())


def test_a_veth_may_get_another_mac(node: Node) -> None:
    """Udev gives it one after the plugin made it: while we watch, the ifindex says whose it is."""
    node.pods.add(pod(1))
    node.host.set(veth(1, mac="02:00:00:00:99:99"))
    assert node.pods.check(pod(1)) == ""
    assert node.accelerated() == {"10.42.1.1": 11}


@pytest.mark.parametrize(
    ("end", "stays"),
    [
        (FarEnd(2, "eth0", "02:00:00:00:20:01", has_xdp=False), True),
        (FarEnd(2, "eth0", "02:00:00:00:20:02", has_xdp=False), False),
        (FarEnd(2, "eth1", "02:00:00:00:20:01", has_xdp=False), False),
        (None, False),
    ],
)
def test_after_a_start_the_other_end_says_whose_a_veth_is(
    node: Node, end: FarEnd | None, *, stays: bool
) -> None:
    """Where its MAC is another by then, the pod's end must have the name and MAC that it had."""
    node.pods.add(pod(1))
    node.host.set(veth(1, mac="02:00:00:00:99:99"))
    if end:
        node.host.ends[11] = end
    node.start()
    node.pods.reconcile()
    assert node.accelerated() == ({"10.42.1.1": 11} if stays else {})


def test_a_pods_device_is_found_under_another_ifindex(node: Node) -> None:
    """After a reboot of what made it: same name and MAC, another number."""
    node.pods.add(pod(1))
    node.host.devices.pop(11)
    node.host.set(veth(1, index=31))
    node.start()
    node.pods.reconcile()
    assert (node.accelerated(), node.pods.places()) == ({"10.42.1.1": 31}, hooks(31))
