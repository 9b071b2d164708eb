# SPDX-License-Identifier: Apache-2.0
"""Whether a pod can be accelerated, which depends on its veth and bridge.

Pure: from devices to the entries of the programs' map, or the reason why there are none.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.datapath.abi import Guard
from vxlane.datapath.records import Pod
from vxlane.host.devices import Device
from vxlane.pods.interfaces import PodInterface

BOTH = Guard.FROM_POD | Guard.TO_POD
_NO_QDISCS = frozenset({"noqueue", "noop", ""})


@dataclass(frozen=True, slots=True)
class PodPlan:
    """The entries of one pod interface in the programs' map."""

    ifindex: int = 0
    """Ifindex of its veth; 0: not read yet."""
    bridge: int = 0
    """Ifindex of the bridge, 0: none."""
    pods: tuple[Pod, ...] = ()
    """One entry for each address. Empty: the pod is not accelerated, and `reason` says why."""
    reason: str = ""
    bridge_facts: tuple[str, int, bool, bool] | None = None
    """The bridge's properties that the entries depend on."""

    def __str__(self) -> str:
        if not self.pods:
            return self.reason
        guard = self.pods[0].guard
        names = [item.name.lower() for item in Guard if item & guard and item.name]
        return f"accelerated, but for {' and '.join(names)}" if names else "accelerated"


def plan_for(
    interface: PodInterface,
    veth: Device,
    bridge: Device | None,
    *,
    others: Guard,
    bridge_netfilter: bool = True,
) -> PodPlan:
    """The plan for a pod.

    `others` are the directions that someone else's filters or rules guard. A bridge or a port that
    restricts pods guards both directions. A shaper on the veth guards the direction to the pod.
    `bridge_netfilter`: the node has the packets of all bridges pass netfilter.
    """
    if veth.kind != "veth":
        return refused(veth, f"{veth.name} is not a veth but a {veth.kind or 'hardware'} device")
    if bridge is None or bridge.kind != "bridge":
        return refused(veth, f"{veth.name} is not a port of a bridge")
    if not interface.addresses:
        return refused(veth, "the pod has no IPv4 address of its own")
    guard = others
    if veth.is_restricted or bridge.filters_vlans:
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
            owner=zlib.crc32(interface.container_id.encode()),
            gso_size=veth.gso_size,
            gso_segs=veth.gso_segs,
            bridge_netfilter=bridge_netfilter or bridge.calls_iptables,
        )
        for address in interface.addresses
    )
    return PodPlan(veth.index, bridge.index, pods, bridge_facts=_facts(bridge))


def refused(veth: Device, reason: str) -> PodPlan:
    """The plan for a pod that stays on the kernel path."""
    return PodPlan(veth.index, veth.master, reason=reason)


def is_still_so(plan: PodPlan, bridge: Device) -> bool:
    """Whether the bridge is as it was when the plan was made."""
    return not plan.pods or plan.bridge_facts == _facts(bridge)


def _facts(bridge: Device) -> tuple[str, int, bool, bool]:
    return bridge.mac, bridge.mtu, bridge.filters_vlans, bridge.calls_iptables
