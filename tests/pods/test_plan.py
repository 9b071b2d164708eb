# SPDX-License-Identifier: Apache-2.0
"""What the programs are told of a pod."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from plaindevice import device

from vxlane.datapath.abi import Guard
from vxlane.host.devices import Device
from vxlane.pods.interfaces import PodInterface
from vxlane.pods.plan import is_still_so, plan_for

VETH = device(7, "veth7", "veth", master=5)
BRIDGE = device(5, "cni0", "bridge", mtu=1400)
POD = PodInterface("c1", "eth0", "", "veth7", "02:00:00:00:01:02", ("10.42.1.7",))


@pytest.mark.parametrize(
    ("veth", "bridge", "guard"),
    [
        (VETH, BRIDGE, Guard(0)),
        (dataclasses.replace(VETH, qdisc="tbf"), BRIDGE, Guard.TO_POD),
        (dataclasses.replace(VETH, is_restricted=True), BRIDGE, Guard.FROM_POD | Guard.TO_POD),
        (VETH, dataclasses.replace(BRIDGE, filters_vlans=True), Guard.FROM_POD | Guard.TO_POD),
    ],
    ids=["plain", "shaper", "isolated", "vlans"],
)
def test_guards_of_a_pod(veth: Device, bridge: Device, guard: Guard) -> None:
    """What keeps packets of a veth apart or back guards the direction that it is about."""
    [pod] = plan_for(POD, veth, bridge, others=Guard(0)).pods
    assert pod.guard == guard
    assert (pod.mtu, pod.gateway_mac, pod.bridge) == (1400, BRIDGE.mac, 5)


def test_super_packets_of_a_pod() -> None:
    """What the veth takes whole counts, not what the bridge does: it hands frames on unchanged."""
    veth = dataclasses.replace(VETH, gso_size=131072, gso_segs=100)
    bridge = dataclasses.replace(BRIDGE, gso_size=65536, gso_segs=10)
    [pod] = plan_for(POD, veth, bridge, others=Guard(0)).pods
    assert (pod.gso_size, pod.gso_segs) == (131072, 100)


@pytest.mark.parametrize(
    ("of_node", "of_bridge", "expected"),
    [(True, False, True), (False, True, True), (False, False, False)],
    ids=["node", "bridge", "neither"],
)
def test_netfilter_on_the_bridge(*, of_node: bool, of_bridge: bool, expected: bool) -> None:
    """The node's setting or the bridge's own has bridged packets pass netfilter."""
    bridge = dataclasses.replace(BRIDGE, calls_iptables=of_bridge)
    [pod] = plan_for(POD, VETH, bridge, others=Guard(0), bridge_netfilter=of_node).pods
    assert pod.bridge_netfilter == expected


@pytest.mark.parametrize(
    "changes", [{"mtu": 1300}, {"mac": VETH.mac}, {"filters_vlans": True}, {"calls_iptables": True}]
)
def test_a_bridge_that_is_another_for_its_pods(changes: dict[str, Any]) -> None:
    """Whatever of a bridge an entry depends on has it made anew; a port that joins has not."""
    bridge = dataclasses.replace(BRIDGE, mac="02:00:00:00:00:05")
    plan = plan_for(POD, VETH, bridge, others=Guard(0), bridge_netfilter=False)
    assert is_still_so(plan, bridge)
    assert not is_still_so(plan, dataclasses.replace(bridge, **changes))
