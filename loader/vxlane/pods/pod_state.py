# SPDX-License-Identifier: Apache-2.0
"""Whether a pod can be accelerated, by what the kernel shows of its veth and bridge.

Pure: from devices to what the programs are told, or a reason against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.datapath.abi import Guard
from vxlane.datapath.records import Pod
from vxlane.host.devices import Device
from vxlane.pods.interfaces import PodInterface

BOTH = Guard.FROM_POD | Guard.TO_POD
_NO_QDISCS = frozenset({"noqueue", "noop", ""})


@dataclass(frozen=True, slots=True)
class PodState:
    """What became of one interface."""

    ifindex: int
    bridge: int
    pods: tuple[Pod, ...] = ()
    reason: str = ""
    """Why it is not accelerated; empty: it is."""
    bridge_facts: tuple[str, int, bool] | None = None
    """What of the bridge went into it."""


def judge(
    interface: PodInterface, veth: Device, bridge: Device | None, *, others: Guard
) -> PodState:
    """Whether a pod can be accelerated, and what the programs are told of it.

    `others`: directions that a filter or a rule of someone else's guards. A bridge or a port that
    keeps pods apart guards both, and a shaper on the veth's root what goes to the pod.
    """
    if veth.kind != "veth":
        return _refused(veth, f"{veth.name} is not a veth but a {veth.kind or 'hardware'} device")
    if bridge is None or bridge.kind != "bridge":
        return _refused(veth, f"{veth.name} is not a port of a bridge")
    if not interface.addresses:
        return _refused(veth, "the pod has no IPv4 address of its own")
    guard = others
    if veth.is_isolated or bridge.filters_vlans:
        guard |= BOTH
    if veth.qdisc not in _NO_QDISCS:
        guard |= Guard.TO_POD
    pods = tuple(
        Pod(
            address=IPv4Address(address),
            ifindex=veth.index,
            bridge=bridge.index,
            mtu=min(veth.mtu, bridge.mtu),
            mac=interface.mac,
            gateway_mac=bridge.mac,
            guard=guard,
        )
        for address in interface.addresses
    )
    return PodState(veth.index, bridge.index, pods, bridge_facts=_facts(bridge))


def is_still_so(state: PodState, bridge: Device) -> bool:
    """Whether the bridge still is what it was when the state's pods were judged."""
    return not state.pods or state.bridge_facts == _facts(bridge)


def _facts(bridge: Device) -> tuple[str, int, bool]:
    return bridge.mac, bridge.mtu, bridge.filters_vlans


def _refused(veth: Device, reason: str) -> PodState:
    return PodState(veth.index, veth.master, reason=reason)
