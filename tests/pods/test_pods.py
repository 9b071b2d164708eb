# SPDX-License-Identifier: Apache-2.0
"""Which pods are accelerated, by what the plugin says and what the maps and hooks take."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest
from podhost import Node, hooks, pod, veth

from vxlane.datapath.abi import Guard
from vxlane.host.devices import Device
from vxlane.host.veths import FarEnd
from vxlane.pods import cni_cache
from vxlane.pods.pods import NO_BYPASS


def test_a_pod_is_told_and_hooked_and_forgotten(node: Node) -> None:
    """Map, devmap, hooks, file: all four come with add and go with remove."""
    assert node.pods.add(pod(1)) == ""
    assert (node.accelerated(), node.veths(), node.host.hooks) == (
        {"10.42.1.1": 11},
        {11},
        hooks(11),
    )
    assert node.pods.places() == hooks(11)
    [port] = node.pods.ports()
    assert (port.ifindex, port.name, port.bridge) == (11, "veth1", 5)
    assert (port.netns, port.addresses) == ("/run/netns/1", (IPv4Address("10.42.1.1"),))
    node.pods.remove(pod(1).key)
    assert (node.accelerated(), node.veths(), node.host.hooks) == ({}, set(), set())
    node.pods.remove(pod(1).key)
    node.start()
    assert node.known() == set()


def test_a_cached_pod_counts_by_its_veth_of_now(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is connected again has another veth, and may be known by the old one; who
    is known by the veth of now is asked for no more.
    """
    asked: list[int] = []

    def end(_: object, ifindex: int) -> FarEnd:
        asked.append(ifindex)
        return FarEnd(2, "eth0", pod(1).mac, has_xdp=False)

    monkeypatch.setattr(cni_cache, "far_end", end)
    node.pods.add(pod(1))
    told = ("c1", "eth0", "cbr0", "", "", pod(1).mac, (IPv4Address("10.42.1.1"),))
    for _ in range(2):
        node.pods.add_cached([cni_cache.CachedPod(*told, host_ifnames=("veth2",))])
        assert (node.accelerated(), asked) == ({"10.42.1.1": 12}, [12])


def test_a_pod_without_its_device_is_refused(node: Node) -> None:
    """Nothing is remembered of it."""
    assert node.pods.add(pod(3)) == "there is no device veth3 in the node's network namespace"
    assert node.known() == set()


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (veth(1, kind="dummy"), "veth1 is not a veth but a dummy device"),
        (veth(1, master=0), "veth1 is not a port of a bridge"),
        (veth(1, master=77), "veth1 is not a port of a bridge"),
    ],
)
def test_a_pod_that_cant_be_accelerated_is_remembered(
    node: Node, device: Device, reason: str
) -> None:
    """It says why; once the device fits, an event makes it accelerated."""
    node.host.set(device)
    assert node.pods.add(pod(1)) == reason
    assert (node.accelerated(), node.pods.places()) == ({}, set())
    node.host.set(veth(1))
    assert node.pods.devices_changed({11}) is True
    node.pods.check_changed()
    assert node.accelerated() == {"10.42.1.1": 11}


def test_an_address_is_the_newest_pods(node: Node) -> None:
    """It is used again before the DEL for its last pod; that DEL takes nothing from the new one.

    Or another network has the same addresses: the older pod's packets must not count as forged.
    """
    node.pods.add(pod(1))
    node.pods.add(pod(2, address=1))
    assert (node.accelerated(), node.host.hooks) == ({"10.42.1.1": 12}, hooks(12))
    node.pods.remove(pod(1).key)
    assert (node.accelerated(), node.host.hooks) == ({"10.42.1.1": 12}, hooks(12))


def test_a_pod_that_is_added_again_is_the_newest(node: Node) -> None:
    """An address that two pods claim is the one's that was added last, however often before."""
    node.pods.add(pod(1))
    node.pods.add(pod(2, address=1))
    node.pods.add(pod(1))
    assert node.accelerated() == {"10.42.1.1": 11}


def test_the_older_pod_gets_its_address_back(node: Node) -> None:
    """Once the newer one is gone, the next look at the older finds the address its own."""
    node.pods.add(pod(1))
    node.pods.add(pod(2, address=1))
    node.pods.remove(pod(2).key)
    node.pods.reconcile()
    assert node.accelerated() == {"10.42.1.1": 11}


def test_a_pod_that_is_added_twice_may_have_other_addresses(node: Node) -> None:
    """What it no longer has goes from the map."""
    node.pods.add(pod(1))
    node.pods.add(pod(1, address=77))
    assert node.accelerated() == {"10.42.1.77": 11}


def test_a_full_map_says_which_option_helps(node: Node) -> None:
    """The pod is on no hook then; a device that is gone meanwhile is told by the kernel's words."""
    node.bpf.capacity["pods"] = 1
    node.pods.add(pod(1))
    assert node.pods.add(pod(2)) == "the map of pods is full; raise --max-pods"
    assert (node.accelerated(), node.host.hooks) == ({"10.42.1.1": 11}, hooks(11))
    node.bpf.gone.add(11)
    node.pods.remove(pod(1).key)
    assert "note interface 11" in node.pods.add(pod(1))


def test_a_refused_hook_takes_the_pod_out_of_the_map(node: Node) -> None:
    """The reason is passed on."""
    node.host.refusal = "attach from_pod to veth1: no such thing"
    assert node.pods.add(pod(1)) == node.host.refusal
    assert (node.accelerated(), node.veths(), node.pods.places()) == ({}, set(), set())


def test_what_became_of_a_pod_is_one_line_of_the_log(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for each change: accelerated, but for what, or why not; by name or container."""
    caplog.set_level("INFO")
    named = dataclasses.replace(pod(1), name="shop/one")
    node.pods.add(named)
    node.pods.reconcile()
    node.host.foreign[11] = Guard.FROM_POD | Guard.TO_POD
    node.pods.add(named)
    node.host.set(veth(2, master=0))
    node.pods.add(pod(2))
    node.pods.remove(named.key)
    shown = "shop/one eth0 10.42.1.1 veth1"
    assert caplog.messages == [
        f"pod {shown}: accelerated",
        f"pod {shown}: accelerated, but for from_pod and to_pod",
        "pod c2 eth0 10.42.1.2 veth2: veth2 is not a port of a bridge",
        f"forget pod {shown}",
    ]


def test_check_of_a_known_pod_puts_right_what_is_wrong(node: Node) -> None:
    """What was taken out of the map behind our back is there again, and no file is written."""
    node.pods.add(pod(1))
    node.maps.delete_pod(IPv4Address("10.42.1.1"))
    assert node.pods.check(pod(1)) == ""
    assert (node.accelerated(), node.host.hook_reads) == ({"10.42.1.1": 11}, 1)
    node.maps.delete_pod(IPv4Address("10.42.1.1"))
    node.pods.reconcile()
    assert node.accelerated() == {"10.42.1.1": 11}


def test_check_of_another_pod_by_the_same_key_takes_what_is_so_now(node: Node) -> None:
    """The plugin says what the runtime has now."""
    node.pods.add(pod(1))
    assert node.pods.check(pod(1, address=9)) == ""
    assert node.accelerated() == {"10.42.1.9": 11}


def test_a_start_takes_over_and_removes_what_is_stale(node: Node) -> None:
    """Pods whose devices went meanwhile are gone; an entry of the map without a pod goes too."""
    node.pods.add(pod(1))
    node.pods.add(pod(2))
    stray = dataclasses.replace(
        node.maps.pods()[IPv4Address("10.42.1.1")], address=IPv4Address("10.42.1.200")
    )
    node.maps.put_pod(stray)
    node.host.devices.pop(12)
    node.start()
    node.pods.reconcile()
    assert node.accelerated() == {"10.42.1.1": 11}
    assert node.known() == {pod(1).key}


def test_a_start_writes_nothing_that_is_there(node: Node) -> None:
    """The entry stays the same all the time, for packets meet it."""
    node.pods.add(pod(1))
    node.bpf.writes.clear()
    node.start()
    node.pods.reconcile()
    assert node.bpf.writes == []


def test_pods_are_known_without_a_bypass_and_accelerated_with_one(node: Node) -> None:
    """A bypass that comes later finds the pods, one that goes leaves them known."""
    node.pods.connect(None)
    assert node.pods.add(pod(1)) == NO_BYPASS
    assert (node.known(), node.accelerated(), node.pods.ports()) == ({pod(1).key}, {}, ())
    assert node.pods.check(pod(1)) == NO_BYPASS
    node.connect()
    node.pods.reconcile()
    assert node.accelerated() == {"10.42.1.1": 11}
    node.pods.connect(None)
    node.pods.reconcile()
    assert (node.known(), node.pods.places()) == ({pod(1).key}, set())
    node.pods.remove(pod(1).key)
    assert node.known() == set()


def test_pods_of_another_network_are_others(node: Node) -> None:
    """A runtime collects garbage network by network."""
    node.pods.add(pod(1))
    node.pods.add(dataclasses.replace(pod(2), network="other"))
    assert node.pods.of_network("other") == {pod(2).key}
