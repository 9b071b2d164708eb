# SPDX-License-Identifier: Apache-2.0
"""All pods of this node, and whether each is accelerated.

The CNI plugin or the runtime's cache says which pods there are. The kernel says whether a veth is
still the same. Pods are kept with and without a bypass; `connect` adds its programs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address
from typing import Protocol

from vxlane.datapath.abi import Guard
from vxlane.datapath.hooks import Place
from vxlane.host import sysctls
from vxlane.host.devices import Device, Devices
from vxlane.host.veths import far_end
from vxlane.pods.cni_cache import CachedPod, confirmed
from vxlane.pods.interfaces import Key, PodInterface, PodStore
from vxlane.pods.plan import PodPlan, is_still_so, plan_for, refused
from vxlane.pods.pod_state import PodPort, PodState, port_of
from vxlane.pods.programs import PodPrograms, places_on
from vxlane.util.dirty import Dirty

log = logging.getLogger(__name__)

NO_BYPASS = "this node has no bypass now; see 'vxlane status'"
NOT_YET_KNOWN = "the cluster has not said yet whether it may be bypassed"


class Admission(Protocol):
    """Decides which pods are left to the kernel path although they could be accelerated."""

    def reason(self, pod: PodInterface) -> str | None:
        """Why this pod is left to it. Empty: it is not. None: that is not known yet."""

    def forget(self, pod: PodInterface) -> None:
        """The pod is gone, or there is another one of its name."""


class Everybody:
    """Admits every pod."""

    def reason(self, pod: PodInterface) -> str | None:  # noqa: ARG002 (whoever it is)
        """Empty."""
        return ""

    def forget(self, pod: PodInterface) -> None:
        """Does nothing."""


class Pods:
    """Adds, checks and removes pods."""

    def __init__(self, devices: Devices, store: PodStore) -> None:
        self._devices = devices
        self._store = store
        self._programs: PodPrograms | None = None
        self.admission: Admission = Everybody()
        self._states = {key: PodState(interface) for key, interface in store.load().items()}
        """In the order in which they were added."""
        self._judged: frozenset[str] = frozenset()
        """Names of veths whose packets are left to the kernel path."""

    def connect(self, programs: PodPrograms | None) -> None:
        """Use these programs from the next `reconcile` on. None: there are none."""
        self._programs = programs
        for state in self._states.values():
            state.plan, state.filters = PodPlan(), None

    def of_network(self, network: str) -> set[Key]:
        """The pods of one network of the runtime."""
        return {key for key, s in self._states.items() if s.interface.network == network}

    def places(self) -> set[Place]:
        """Where programs are to be attached."""
        return {place for port in self.ports() for place in places_on(port.ifindex)}

    def ports(self) -> tuple[PodPort, ...]:
        """The veths of pods that are accelerated."""
        return tuple(port_of(state) for state in self._states.values() if state.plan.pods)

    def add(self, interface: PodInterface) -> str:
        """Remember and accelerate a pod. Returns why it can't be accelerated.

        Empty: it is accelerated, or left out on purpose.
        """
        veth = self._devices.by_name(interface.host_ifname)
        if veth is None:
            return f"there is no device {interface.host_ifname} in the node's network namespace"
        for key, other in list(self._states.items()):
            # Another pod that had this ifindex is gone, and its event is still to come.
            if other.ifindex == veth.index and key != interface.key:
                self.remove(key)
        interface = dataclasses.replace(interface, host_mac=veth.mac)
        self._store.save(interface)
        self.admission.forget(interface)
        before = self._states.pop(interface.key, None)
        state = PodState(interface, before.plan if before else PodPlan())
        self._states[interface.key] = state
        own = set(interface.addresses)
        for other in list(self._states.values()):
            # Its programs would take what it sends for forged, and --strict drops that.
            if other is not state and own & set(other.interface.addresses):
                self._check(other)
        return self._review(state, veth)

    def add_cached(self, pods: Iterable[CachedPod]) -> None:
        """Add the pods that are not known yet and that the kernel shows."""
        for interface in confirmed(filter(self._is_new, pods), self._devices):
            self.add(interface)

    def _is_new(self, pod: CachedPod) -> bool:
        """Whether `pod` is not known, or has another veth since: names of veths are random.

        Or another MAC: the tuning plugin may give it one behind ours.
        """
        state = self._states.get(pod.key)
        if state is None:
            return True
        known = state.interface
        return known.host_ifname not in pod.host_ifnames or pod.mac not in ("", known.mac)

    def check(self, interface: PodInterface) -> str:
        """Repair a pod. Returns why it is not accelerated; empty: it is."""
        state = self._states.get(interface.key)
        if state is None:
            return self.add(interface)
        if state.interface != dataclasses.replace(interface, host_mac=state.interface.host_mac):
            return self.add(interface)
        if self._programs:
            # Someone may have changed the map or the veth since.
            self._programs.read()
        return self._check(state)

    def remove(self, key: Key) -> None:
        """Forget a pod, whether it is known or not."""
        state = self._states.pop(key, None)
        self._store.remove(key)
        if state is None:
            return
        self.admission.forget(state.interface)
        if self._programs:
            self._programs.remove(state.plan)
        log.info("forget pod %s", state)

    def devices_removed(self, ifindexes: Collection[int]) -> None:
        """Remove the pods of devices that are gone. At once, because ifindexes are used again."""
        for key, state in list(self._states.items()):
            if state.ifindex in ifindexes:
                self.remove(key)

    def devices_changed(self, ifindexes: Collection[int]) -> bool:
        """Note devices that changed, also by qdiscs and filters. True: a pod is to be checked."""
        for state in self._states.values():
            if state.ifindex in ifindexes:
                state.veth_changed, state.filters = True, None
            if state.plan.bridge in ifindexes:
                state.bridge_changed = True
        return any(s.veth_changed or s.bridge_changed for s in self._states.values())

    def check_changed(self) -> None:
        """Check the pods of devices that changed.

        The kernel reports a change of the bridge whenever a port joins. Its pods are checked only
        if a property of the bridge changed that matters to them.
        """
        changed = [s for s in self._states.values() if s.veth_changed or s.bridge_changed]
        bridges = {s.plan.bridge for s in changed if s.bridge_changed}
        found = {ifindex: self._devices.by_index(ifindex) for ifindex in bridges}
        for state in changed:
            bridge = found.get(state.plan.bridge) if state.bridge_changed else None
            is_other = bridge is not None and not is_still_so(state.plan, bridge)
            must_check = state.veth_changed or is_other
            state.veth_changed = state.bridge_changed = False
            if must_check:
                self._check(state)

    def judge(self, names: frozenset[str]) -> None:
        """Leave the packets of exactly these veths' pods to the kernel path."""
        changed, self._judged = self._judged ^ names, names
        for state in list(self._states.values()):
            if state.interface.host_ifname in changed:
                self._check(state)

    def reconsider(self) -> None:
        """Check the pods for which the answer of admission has changed."""
        for state in list(self._states.values()):
            if self.admission.reason(state.interface) != state.refusal:
                self._check(state)

    def reconcile(self) -> None:
        """Check every pod, and remove entries of the map that belong to none.

        Pods without a veth are removed first: their ifindex may be another pod's by now.
        """
        devices = self._devices.all()
        by_name = {device.name: device for device in devices.values()}
        found: list[tuple[PodState, Device]] = []
        for key, state in list(self._states.items()):
            veth = by_name.get(state.interface.host_ifname)
            if veth and self._is_of(veth, state):
                found.append((state, veth))
            else:
                self.remove(key)
        if self._programs:
            self._programs.read()
            self._programs.keep_only(set(map(IPv4Address, self._holders())))
        for state, veth in found:
            self._review(state, veth, bridge=devices.get(veth.master))
        if self._programs:
            plans = (state.plan for state in self._states.values())
            self._programs.keep_only({pod.address for plan in plans for pod in plan.pods})

    def resync(self) -> Iterator[Dirty]:
        """Check one pod at a time, and its filters: there are no events for TCX programs."""
        for state in list(self._states.values()):
            if self._states.get(state.key) is state:
                state.filters = None
                self._check(state)
            yield Dirty(0)

    def lost_track(self) -> None:
        """Events were lost: filters may have changed anywhere."""
        for state in self._states.values():
            state.filters = None

    def _check(self, state: PodState) -> str:
        veth = self._devices.by_name(state.interface.host_ifname)
        if veth and self._is_of(veth, state):
            return self._review(state, veth)
        self.remove(state.key)
        return f"its veth {state.interface.host_ifname} is gone"

    def _is_of(self, veth: Device, state: PodState) -> bool:
        """Whether the veth is still the one that was added, and not a later one of the same name.

        Its MAC may change: udev gives a veth another one some time after the bridge plugin has made
        it (MACAddressPolicy=persistent). If this agent has seen the veth before, its ifindex
        decides then, otherwise the pod's end does.
        """
        if veth.mac == state.interface.host_mac:
            return True
        if state.ifindex:
            return state.ifindex == veth.index
        end = far_end(self._devices.socket, veth.index)
        wanted = (state.interface.ifname, state.interface.mac)
        return end is not None and (end.name, end.mac) == wanted

    def _review(self, state: PodState, veth: Device, *, bridge: Device | None = None) -> str:
        """Plan one pod and apply the plan. Returns why it is not accelerated; empty: it is."""
        before, state.ifindex = state.plan, veth.index
        if self._programs is None:
            return NO_BYPASS
        if bridge is None and veth.master:
            bridge = self._devices.by_index(veth.master)
        plan = self._planned(state, self._programs, veth, bridge)
        state.plan = self._programs.apply(before, plan)
        if before != state.plan:
            log.info("pod %s: %s", state, state.plan)
        return "" if state.is_left_out else state.plan.reason

    def _planned(
        self, state: PodState, programs: PodPrograms, veth: Device, bridge: Device | None
    ) -> PodPlan:
        state.refusal = self.admission.reason(state.interface)
        if state.is_left_out:
            return refused(veth, state.refusal or NOT_YET_KNOWN)
        if state.filters is None:
            state.filters = programs.foreign(veth.index)
        others = state.filters
        if veth.name in self._judged:
            others |= Guard.JUDGED
        holders = self._holders()
        own = tuple(a for a in state.interface.addresses if holders[a] == state.key)
        interface = dataclasses.replace(state.interface, addresses=own)
        # Nothing tells of a change; the next resync sees it.
        bridge_netfilter = sysctls.read(sysctls.BRIDGE_NETFILTER) == "1"
        return plan_for(interface, veth, bridge, others=others, bridge_netfilter=bridge_netfilter)

    def _holders(self) -> dict[str, Key]:
        """The newest pod of each address: the DEL of an older one may come later."""
        return {a: key for key, state in self._states.items() for a in state.interface.addresses}
