# SPDX-License-Identifier: Apache-2.0
"""Keeps the programs' map of pods, and the hooks on their veths, equal to what is really there.

The CNI plugin says which pods there are; the kernel says whether a veth is what it was. A pod's
entry in the map comes before its hooks and goes after them.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.datapath.abi import Guard, Program
from vxlane.datapath.hooks import HookKeeper, Place
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import IPAddress, Pod
from vxlane.errors import KernelError
from vxlane.host.devices import Device, Devices
from vxlane.host.veths import far_end
from vxlane.pods.interfaces import Key, PodInterface, PodStore
from vxlane.pods.pod_state import PodState, is_still_so, judge
from vxlane.util.dirty import Dirty

log = logging.getLogger(__name__)

_FULL = frozenset({errno.E2BIG, errno.ENOSPC})

ForeignFilters = Callable[[int], Guard]
"""Directions in which someone else's filters stand on a device (ifindex)."""


@dataclass(frozen=True, slots=True)
class PodPort:
    """The veth of one pod."""

    ifindex: int
    name: str
    bridge: int
    """Ifindex."""
    netns: str
    addresses: tuple[IPv4Address, ...]


class PodKeeper:
    """All pods of this node."""

    def __init__(
        self,
        maps: Maps,
        hooks: HookKeeper,
        *,
        devices: Devices,
        foreign: ForeignFilters,
        store: PodStore,
    ) -> None:
        self._maps = maps
        self._hooks = hooks
        self._devices = devices
        self._foreign = foreign
        self._store = store
        self._interfaces = self._store.load()
        """In the order in which they were made."""
        self._claims = self._claim()
        self._states: dict[Key, PodState] = {}
        self._owners: dict[IPAddress, Key] = {}
        self._actual = maps.pods()
        self._filters: dict[int, Guard] = {}
        """What `foreign` said of each veth; forgotten when an event is about it."""
        self._judged: frozenset[str] = frozenset()
        """Names of veths whose packets are left to the kernel path."""
        self._touched: set[int] = set()
        """Veths and bridges that are to be looked at."""

    @property
    def interfaces(self) -> Mapping[Key, PodInterface]:
        """What is remembered."""
        return self._interfaces

    def places(self) -> set[Place]:
        """Where programs have to stand."""
        return {
            place
            for state in self._states.values()
            if state.pods
            for place in _places(state.ifindex)
        }

    def add(self, interface: PodInterface) -> str:
        """Remember and accelerate a pod; why it is not accelerated, or empty."""
        veth = self._devices.by_name(interface.host_ifname)
        if veth is None:
            return f"there is no device {interface.host_ifname} in the node's network namespace"
        interface = dataclasses.replace(interface, host_mac=veth.mac)
        self._take_over(veth.index, interface.key)
        self._store.save(interface)
        self._interfaces.pop(interface.key, None)
        self._interfaces[interface.key] = interface
        self._claims = self._claim()
        self._filters.pop(veth.index, None)
        return self._review(interface, veth)

    def check(self, interface: PodInterface) -> str:
        """Put right what is wrong with a pod, if anything; why it is not accelerated, or empty."""
        known = self._interfaces.get(interface.key)
        if known is None or known != dataclasses.replace(interface, host_mac=known.host_mac):
            return self.add(interface)
        # What stands where and what is in the map, and not what was put there.
        self._hooks.read()
        self._actual = self._maps.pods()
        return self._check(known)

    def remove(self, key: Key) -> bool:
        """Forget a pod; whether it was known."""
        interface = self._interfaces.pop(key, None)
        self._store.remove(key)
        if interface is None:
            return False
        self._claims = self._claim()
        self._withdraw(key)
        log.info("forget pod %s", _shown(interface))
        return True

    def _claim(self) -> dict[str, Key]:
        """Whose each address is: it is used again before the DEL for its last pod has come."""
        return {address: key for key, at in self._interfaces.items() for address in at.addresses}

    def devices_removed(self, ifindexes: Collection[int]) -> None:
        """Devices are gone, and their pods with them: at once, for an ifindex is used again."""
        for key, state in list(self._states.items()):
            if state.ifindex in ifindexes:
                self.remove(key)

    def _take_over(self, ifindex: int, key: Key) -> None:
        """Another pod that had this ifindex is gone, though the event of that is yet to come."""
        for other, state in list(self._states.items()):
            if state.ifindex == ifindex and other != key:
                self.remove(other)

    def devices_changed(self, ifindexes: Collection[int]) -> bool:
        """Devices, their qdiscs or filters changed; whether some pod has to be looked at."""
        states = self._states.values()
        veths = {s.ifindex for s in states if s.ifindex in ifindexes}
        bridges = {s.bridge for s in states if s.bridge in ifindexes}
        for ifindex in veths:
            self._filters.pop(ifindex, None)
        self._touched |= veths | bridges
        return bool(self._touched)

    def check_touched(self) -> None:
        """Verify the pods of devices that changed.

        A bridge says that it changed whenever a port joins; its pods are looked at only if it is
        another bridge for them.
        """
        touched, self._touched = self._touched, set()
        devices = {ifindex: self._devices.by_index(ifindex) for ifindex in touched}
        for key, state in list(self._states.items()):
            bridge = devices.get(state.bridge)
            if state.ifindex in touched or (bridge and not is_still_so(state, bridge)):
                self._check(self._interfaces[key])

    def judge(self, names: frozenset[str]) -> None:
        """Leave the packets of these veths' pods to the kernel path, and of no others."""
        changed, self._judged = self._judged ^ names, names
        for interface in list(self._interfaces.values()):
            if interface.host_ifname in changed:
                self._check(interface)

    def ports(self) -> tuple[PodPort, ...]:
        """The veths of pods that are accelerated."""
        return tuple(
            PodPort(
                state.ifindex,
                self._interfaces[key].host_ifname,
                state.bridge,
                self._interfaces[key].netns,
                tuple(IPv4Address(int(pod.address)) for pod in state.pods),
            )
            for key, state in self._states.items()
            if state.pods
        )

    def reconcile(self) -> None:
        """Verify every pod, and remove what is in the map without one.

        What is gone goes first: its ifindex may be another pod's by now.
        """
        devices = self._devices.all()
        by_name = {device.name: device for device in devices.values()}
        self._actual = self._maps.pods()
        found: dict[Key, Device] = {}
        for key, interface in list(self._interfaces.items()):
            veth = by_name.get(interface.host_ifname)
            if veth and self._is_of(veth, interface):
                found[key] = veth
            else:
                self.remove(key)
        self._remove_stale(map(IPv4Address, self._claims))
        for key, veth in found.items():
            self._review(self._interfaces[key], veth, bridge=devices.get(veth.master))
        self._remove_stale(self._owners)

    def resync(self) -> Iterator[Dirty]:
        """Verify one pod at a time, filters too: of a TCX program nobody tells."""
        for key in list(self._interfaces):
            if interface := self._interfaces.get(key):
                if state := self._states.get(key):
                    self._filters.pop(state.ifindex, None)
                self._check(interface)
            yield Dirty(0)

    def lost_track(self) -> None:
        """Events were lost: filters may have changed anywhere."""
        self._filters.clear()

    def _check(self, interface: PodInterface) -> str:
        veth = self._devices.by_name(interface.host_ifname)
        if veth and self._is_of(veth, interface):
            return self._review(interface, veth)
        self.remove(interface.key)
        return f"its veth {interface.host_ifname} is gone"

    def _is_of(self, veth: Device, interface: PodInterface) -> bool:
        """Whether the veth is still the one that was attached, and no later one by its name.

        Its MAC may change: udev gives a veth one of its own some time after the bridge plugin has
        made it (MACAddressPolicy=persistent). While we watch, the ifindex tells then, and else the
        pod's end.
        """
        if veth.mac == interface.host_mac:
            return True
        if state := self._states.get(interface.key):
            return state.ifindex == veth.index
        end = far_end(self._devices.socket, veth.index)
        return end is not None and (end.name, end.mac) == (interface.ifname, interface.mac)

    def _review(
        self, interface: PodInterface, veth: Device, *, bridge: Device | None = None
    ) -> str:
        """Judge one pod and make map and hooks so; why it is not accelerated, or empty."""
        if bridge is None and veth.master:
            bridge = self._devices.by_index(veth.master)
        others = self._guarded(veth.index)
        if veth.name in self._judged:
            others |= Guard.JUDGED
        own = tuple(a for a in interface.addresses if self._claims[a] == interface.key)
        interface = dataclasses.replace(interface, addresses=own)
        state = judge(interface, veth, bridge, others=others)
        before = self._states.get(interface.key)
        if not state.pods:
            self._withdraw(interface.key)
            self._states[interface.key] = state
        else:
            state = self._accelerate(interface.key, state)
        if before != state:
            log.info("pod %s: %s", _shown(interface), state.reason or _guards(state))
        return state.reason

    def _guarded(self, ifindex: int) -> Guard:
        if ifindex not in self._filters:
            self._filters[ifindex] = self._foreign(ifindex)
        return self._filters[ifindex]

    def _accelerate(self, key: Key, state: PodState) -> PodState:
        for address in self._addresses(key) - {pod.address for pod in state.pods}:
            self._remove_address(address)
        for pod in state.pods:
            self._owners[pod.address] = key
        self._states[key] = state
        if reason := self._put(state.pods) or self._hooks.attach(_places(state.ifindex)):
            self._withdraw(key)
            state = dataclasses.replace(state, pods=(), reason=reason)
            self._states[key] = state
        return state

    def _put(self, pods: Iterable[Pod]) -> str:
        """Write what differs; why that could not be, or empty."""
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

    def _withdraw(self, key: Key) -> None:
        """Take a pod off its hooks and out of the map."""
        state = self._states.pop(key, None)
        if state and state.pods:
            self._hooks.detach(_places(state.ifindex))
            self._maps.delete_veth(state.ifindex)
        for address in self._addresses(key):
            self._remove_address(address)

    def _addresses(self, key: Key) -> set[IPAddress]:
        return {address for address, owner in self._owners.items() if owner == key}

    def _remove_stale(self, known: Iterable[IPAddress]) -> None:
        for address in self._actual.keys() - set(known):
            log.info("remove pod %s from the map: stale", address)
            self._remove_address(address)

    def _remove_address(self, address: IPAddress) -> None:
        self._maps.delete_pod(address)
        self._actual.pop(address, None)
        self._owners.pop(address, None)


def _places(ifindex: int) -> Iterable[Place]:
    # to_pod first: what it learns is of no use before from_pod is there to use it.
    return (Program.TO_POD, ifindex), (Program.FROM_POD, ifindex)


def _shown(interface: PodInterface) -> str:
    name = interface.name or interface.container_id[:12]
    return f"{name} {interface.ifname} {' '.join(interface.addresses)} {interface.host_ifname}"


def _guards(state: PodState) -> str:
    guard = state.pods[0].guard
    names = [item.name.lower() for item in Guard if item & guard and item.name]
    return f"accelerated, but for {' and '.join(names)}" if names else "accelerated"
