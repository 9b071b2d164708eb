# SPDX-License-Identifier: Apache-2.0
"""What devices on the way of pods' packets do to each packet: qdiscs, tc filters and XDP.

A bypassed packet enters neither the overlay's device nor a bridge, so it skips what is attached
there. A NIC's qdiscs and programs see bypassed packets too, and need no look. A pod's own programs
are read in the pod's namespace, because the kernel sends us no events about them.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vxlane.datapath.attach import Hooks
from vxlane.datapath.syscall import TcxHook, tcx_programs
from vxlane.errors import KernelError
from vxlane.host.veths import far_end, has_xdp
from vxlane.mechanisms.kinds import Finding, Kind, Scope
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import NetlinkSocket, Request, attributes, text_of
from vxlane.runtime import netns

QUEUES = frozenset(
    {"noqueue", "noop", "mq", "pfifo", "bfifo", "pfifo_fast", "fq", "fq_codel", "ingress", "clsact"}
)
"""Qdiscs that neither delay nor drop packets on a device that is never busy. Filters on them are
read separately."""


@dataclass(frozen=True, slots=True)
class PodDevice:
    """A pod's veth."""

    ifindex: int
    name: str
    netns: str
    """The path of the pod's namespace; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices on the way of pods' packets."""

    inner: tuple[tuple[int, str], ...]
    """Ifindex and name of the VXLAN device and of bridges."""
    pods: tuple[PodDevice, ...]


class DeviceReader:
    """Reads devices from this thread's network namespace on."""

    def __init__(self, hooks: Hooks, netlink: NetlinkSocket) -> None:
        self._hooks = hooks
        self._netlink = netlink

    def findings(self, devices: Devices) -> tuple[Finding, ...]:
        """What is attached to the devices. A device that is gone has nothing."""
        qdiscs = self._qdiscs()
        found: list[Finding] = []
        for ifindex, name in devices.inner:
            shapers = sorted(qdiscs.get(ifindex, set()) - QUEUES)
            found += [Finding(Kind.SHAPER, f"qdisc {kind} on {name}") for kind in shapers]
            if any(self._hooks.has_foreign_filters(hook, ifindex) for hook in TcxHook):
                found.append(Finding(Kind.TC, f"tc filters on {name}"))
            if has_xdp(self._netlink, ifindex):
                found.append(Finding(Kind.XDP, f"XDP on {name}"))
        for pod in devices.pods:
            found += self._of_pod(pod)
        return tuple(found)

    def _of_pod(self, pod: PodDevice) -> Iterator[Finding]:
        """What is attached to the pod's own end of its veth."""
        end = far_end(self._netlink, pod.ifindex)
        if end is None:
            return
        scope = Scope(ports=frozenset({pod.name}))
        if end.has_xdp:
            yield Finding(Kind.XDP, f"XDP in the pod of {pod.name}", scope)
        if _has_filters(pod.netns, end.ifindex):
            yield Finding(Kind.TC, f"tc filters in the pod of {pod.name}", scope)

    def _qdiscs(self) -> dict[int, set[str]]:
        """The kinds of every device's qdiscs, by ifindex."""
        kinds: dict[int, set[str]] = {}
        everything = rt.TCMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        for body in self._netlink.dump(Request(rt.RTM_GETQDISC, everything)):
            _, ifindex, _, _, _ = rt.TCMSG.unpack_from(body)
            kind = attributes(body, rt.TCMSG.size)[rt.TCA_KIND]
            kinds.setdefault(ifindex, set()).add(text_of(kind))
        return kinds


def _has_filters(namespace: str, ifindex: int) -> bool:
    """Whether a pod's interface has tc programs. False where its namespace can't be entered."""
    if not namespace:
        return False
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(netns.entered(Path(namespace)))
        except (OSError, KernelError):
            return False
        return _has_filters_here(ifindex)


def _has_filters_here(ifindex: int) -> bool:
    if any(tcx_programs(ifindex, hook) for hook in TcxHook):
        return True
    parents = (rt.CLSACT_INGRESS, rt.CLSACT_EGRESS)
    heads = [rt.TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, parent, 0) for parent in parents]
    with contextlib.closing(NetlinkSocket()) as netlink:
        try:
            return any(netlink.dump(Request(rt.RTM_GETTFILTER, head)) for head in heads)
        except KernelError:
            return False  # no qdisc that could have filters
