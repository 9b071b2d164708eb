# SPDX-License-Identifier: Apache-2.0
"""All that is known of one pod interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from vxlane.datapath.abi import Guard
from vxlane.pods.interfaces import Key, PodInterface
from vxlane.pods.plan import PodPlan


@dataclass(slots=True)
class PodState:
    """One pod interface: as it was reported, as its devices were seen, and as the map has it."""

    interface: PodInterface
    plan: PodPlan = field(default_factory=PodPlan)
    """The entries that are in the programs' map."""
    ifindex: int = 0
    """Ifindex of its veth when that was last seen; 0: it was not seen yet."""
    filters: Guard | None = None
    """The directions in which the veth has someone else's filters. None: they are to be read."""
    veth_changed: bool = False
    """An event was about the veth since the last check."""
    bridge_changed: bool = False
    """An event was about its bridge since the last check."""
    refusal: str | None = ""
    """The last answer of `Admission.reason`."""

    def __str__(self) -> str:
        at = self.interface
        name = at.name or at.container_id[:12]
        return f"{name} {at.ifname} {' '.join(at.addresses)} {at.host_ifname}"

    @property
    def is_left_out(self) -> bool:
        """Whether it stays on the kernel path because that is wanted, or not known yet."""
        return self.refusal != ""

    @property
    def key(self) -> Key:
        """See `Key`."""
        return self.interface.key


@dataclass(frozen=True, slots=True)
class PodPort:
    """The veth of one pod that is accelerated."""

    ifindex: int
    name: str
    bridge: int
    """Ifindex."""
    netns: str
    addresses: tuple[IPv4Address, ...]


def port_of(state: PodState) -> PodPort:
    """The veth of a pod that is accelerated."""
    return PodPort(
        ifindex=state.ifindex,
        name=state.interface.host_ifname,
        bridge=state.plan.bridge,
        netns=state.interface.netns,
        addresses=tuple(IPv4Address(int(pod.address)) for pod in state.plan.pods),
    )
