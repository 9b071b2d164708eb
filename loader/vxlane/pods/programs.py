# SPDX-License-Identifier: Apache-2.0
"""Writes the programs' map of pods, and attaches the programs to the pods' veths.

A pod's entry is written before its programs are attached, and removed after they are detached.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Callable, Collection, Iterable

from vxlane.datapath.abi import Guard, Program
from vxlane.datapath.hooks import HookKeeper, Place
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import IPAddress, Pod
from vxlane.errors import KernelError
from vxlane.pods.plan import PodPlan

log = logging.getLogger(__name__)

_FULL = frozenset({errno.E2BIG, errno.ENOSPC})

ForeignFilters = Callable[[int], Guard]
"""The directions in which a device (ifindex) has someone else's filters."""


class PodPrograms:
    """Applies plans of pods; remembers the content of the map."""

    def __init__(self, maps: Maps, hooks: HookKeeper, foreign: ForeignFilters) -> None:
        self._maps = maps
        self._hooks = hooks
        self.foreign = foreign
        self._actual = maps.pods()

    def read(self) -> None:
        """Read the map and the places of programs from the kernel."""
        self._hooks.read()
        self._actual = self._maps.pods()

    def apply(self, before: PodPlan, plan: PodPlan) -> PodPlan:
        """Replace the plan `before` by `plan`. Returns the plan that is in force then."""
        if not plan.pods:
            self.remove(before)
            return plan
        addresses = {pod.address for pod in plan.pods}
        for pod in before.pods:
            if pod.address not in addresses:
                self._remove_entry(pod)
        if reason := self._put(plan.pods) or self._hooks.attach(places_on(plan.ifindex)):
            self.remove(plan)
            return dataclasses.replace(plan, pods=(), reason=reason)
        return plan

    def remove(self, plan: PodPlan) -> None:
        """Detach a pod's programs and remove it from the map."""
        if plan.pods:
            self._hooks.detach(places_on(plan.ifindex))
            self._maps.delete_veth(plan.ifindex)
        for pod in plan.pods:
            self._remove_entry(pod)

    def keep_only(self, addresses: Collection[IPAddress]) -> None:
        """Remove all other addresses from the map."""
        for address in self._actual.keys() - set(addresses):
            log.info("remove pod %s from the map: stale", address)
            self._delete(address)

    def _put(self, pods: Iterable[Pod]) -> str:
        """Write the entries that differ. Returns why one could not be written, or empty."""
        for pod in pods:
            if self._actual.get(pod.address) == pod:
                continue
            try:
                self._maps.put_pod(pod)
            except KernelError as error:
                is_full = error.errno in _FULL
                return "the map of pods is full; raise --max-pods" if is_full else str(error)
            self._actual[pod.address] = pod
        return ""

    def _remove_entry(self, pod: Pod) -> None:
        """Remove a pod's entry, unless another veth has its address by now."""
        actual = self._actual.get(pod.address)
        if actual is None or actual.ifindex == pod.ifindex:
            self._delete(pod.address)

    def _delete(self, address: IPAddress) -> None:
        self._maps.delete_pod(address)
        self._actual.pop(address, None)


def places_on(ifindex: int) -> tuple[Place, ...]:
    """The places of a pod's programs on its veth.

    to_pod comes first, because from_pod uses what it learns.
    """
    return (Program.TO_POD, ifindex), (Program.FROM_POD, ifindex)
