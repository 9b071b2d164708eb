# SPDX-License-Identifier: Apache-2.0
"""Opens the pinned maps, and reads and writes `records`.

Works in any process, with no bcc and no netlink. Imports records, batches, syscall, abi and errors.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vxlane.datapath import batches, syscall
from vxlane.datapath.abi import Program, Verdict, Way
from vxlane.datapath.batches import Page
from vxlane.datapath.records import (
    SHAPES,
    STRUCTS,
    U32,
    Count,
    Flow,
    IPAddress,
    IPNetwork,
    Peer,
    PeerCount,
    Pod,
    Settings,
    Tuple,
    cidr_key,
    mapped,
)
from vxlane.errors import ContractError, KernelError

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own is 3.11's


class Maps:
    """The maps below one pin directory, opened."""

    def __init__(self, descriptors: dict[str, int]) -> None:
        self._fds = descriptors
        self._cpus = syscall.possible_cpus()

    @classmethod
    def open(cls, pins: Path) -> Maps:
        """FileNotFoundError: nothing is pinned. ContractError: the maps have another layout."""
        maps = cls({})
        try:
            for name in SHAPES:
                maps._fds[name] = syscall.obj_get(pins / name)
                _check_shape(name, maps._fds[name])
        except BaseException:
            maps.close()
            raise
        return maps

    def close(self) -> None:
        """Close; the pins keep the maps."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def peers(self) -> dict[IPNetwork, Peer]:
        """Peers by pod CIDR."""
        found = (Peer.of(key, value) for key, value in self._entries("peers"))
        return {peer.cidr: peer for peer in found}

    def put_peer(self, peer: Peer) -> None:
        """Add or replace. The new VTEP is written first and the old one removed last, so that the
        peer always has one. That takes a free place among the VTEPs, and before Linux 6.13 one
        among the peers: an LPM trie that was full refused to replace an entry, too.
        """
        before = self._match(peer.cidr)
        syscall.map_update(self._fds["vteps"], mapped(peer.address), bytes(U32(peer.slot)))
        syscall.map_update(self._fds["peers"], cidr_key(peer.cidr), peer.value)
        if before and before.slot == peer.slot and bytes(before.address) != mapped(peer.address):
            self._forget_vtep(before)

    def has_peer(self, peer: Peer) -> bool:
        """Whether the programs find exactly this peer for its CIDR."""
        match = self._match(peer.cidr)
        return match is not None and bytes(match) == peer.value

    def delete_peer(self, cidr: IPNetwork) -> None:
        """Forget a peer, and its VTEP unless another peer has taken that address over."""
        match = self._match(cidr)
        if match and syscall.map_delete(self._fds["peers"], cidr_key(cidr)):
            self._forget_vtep(match)

    def peer_of(self, address: IPAddress) -> Peer | None:
        """The peer whose pods have `address`, as the programs find it; its CIDR is the address."""
        host = ip_network(address)
        match = self._match(host)
        return Peer.of(STRUCTS["cidr"].from_buffer_copy(cidr_key(host)), match) if match else None

    def _match(self, cidr: IPNetwork) -> Any | None:
        """The struct peer of the longest match, which may be that of a wider CIDR."""
        raw = syscall.map_lookup(self._fds["peers"], cidr_key(cidr), self._size("peers"))
        return STRUCTS["peer"].from_buffer_copy(raw) if raw else None

    def _forget_vtep(self, gone: Any) -> None:
        owner = syscall.map_lookup(self._fds["vteps"], bytes(gone.address), self._size("vteps"))
        if owner == bytes(U32(gone.slot)):
            syscall.map_delete(self._fds["vteps"], bytes(gone.address))

    def pods(self) -> dict[IPAddress, Pod]:
        """Pods by address."""
        found = (Pod.of(key, value) for key, value in self._entries("pods"))
        return {pod.address: pod for pod in found}

    def put_pod(self, pod: Pod) -> None:
        """Add or replace. KernelError: the map is full, or the veth is gone.

        The veth is looked up in the calling thread's network namespace. The kernel follows it: when
        it is gone, no packet is redirected to it, whatever this map still says.
        """
        syscall.devmap_put(self._fds["veths"], pod.ifindex)
        veth = bytes(U32(pod.ifindex))
        syscall.map_update(self._fds["interfaces"], veth, mapped(pod.address))
        syscall.map_update(self._fds["pods"], mapped(pod.address), pod.value)

    def delete_pod(self, address: IPAddress) -> None:
        """Forget a pod; from here on its packets take the kernel path."""
        syscall.map_delete(self._fds["pods"], mapped(address))

    def delete_veth(self, ifindex: int) -> None:
        """Redirect no more packets to a veth that is not one of our pods' any more."""
        for name in ("veths", "interfaces"):
            syscall.map_delete(self._fds[name], bytes(U32(ifindex)))

    def has_veth(self, ifindex: int) -> bool:
        """Whether packets can be redirected to that veth: the kernel still has the device."""
        return syscall.map_lookup(self._fds["veths"], bytes(U32(ifindex)), 4) is not None

    def settings(self) -> Settings:
        """Zeros until an agent has written them."""
        raw = syscall.map_lookup(self._fds["settings"], bytes(4), self._size("settings"))
        return Settings.of(STRUCTS["settings"].from_buffer_copy(raw or b""))

    def put_settings(self, settings: Settings) -> None:
        """Replace all settings; a program sees old fields or new ones, each whole."""
        syscall.map_update(self._fds["settings"], bytes(4), settings.value)

    def flows(self) -> Iterator[Flow]:
        """Every record, live or stale, in the kernel's order, but none of ended connections."""
        records = (Flow.of(key, value) for key, value in self._entries("flows"))
        return (flow for flow in records if flow.seen_out or flow.seen_in)

    def flow(self, key: Tuple) -> Flow | None:
        """The record of one flow as its local pod has it, also that of an ended connection. None:
        there is none.
        """
        flow = self._record(key.key)
        if flow and flow.tuple == key:
            return flow
        other = self.flow_behind(key.reversed)
        return other.of_neighbour if other and other.way == Way.LOCAL else None

    def flow_behind(self, behind: Tuple) -> Flow | None:
        """The record of what the other end sends to the pod, by the 5-tuple as it is for the pod
        behind netfilter; as find_flow() in bpf/flow.h.
        """
        flow = self._record(behind.key)
        if flow and flow.behind == flow.tuple == behind:
            return flow
        key = syscall.map_lookup(self._fds["translations"], behind.key, self._size("translations"))
        found = self._record(key) if key else None
        return found if found and found.behind == behind else None

    def flows_between(self, local: IPAddress, remote: IPAddress) -> Iterator[Flow]:
        """The records of a local pod's flows with another address, before or behind netfilter.

        Only records that fit are decoded, so a quarter of a million take 0.2 s.
        """
        key_type, value_type = SHAPES["flows"]
        pairs = {mapped(local) + mapped(remote), mapped(remote) + mapped(local)}
        start, size = value_type.nat_local.offset, 2 * key_type.high.offset
        sizes = ctypes.sizeof(key_type), ctypes.sizeof(value_type)
        for key, value in batches.map_entries(self._fds["flows"], *sizes):
            if key[:size] in pairs or value[start : start + size] in pairs:
                for view in _flow(key, value).views:
                    forms = view.tuple, view.behind
                    if (local, remote) in {(form.local, form.remote) for form in forms}:
                        yield view

    def _record(self, key: bytes) -> Flow | None:
        value = syscall.map_lookup(self._fds["flows"], key, self._size("flows"))
        return _flow(key, value) if value else None

    def connections_last_used(self, after: int, until: int) -> Iterator[tuple[Tuple, int] | None]:
        """TCP flows that were last bypassed in that span, and when (CLOCK_MONOTONIC, ns). Yields
        None for each other record, so that the caller can count them.
        """
        key_type, value_type = SHAPES["flows"]
        sizes = ctypes.sizeof(key_type), ctypes.sizeof(value_type)
        last = struct.Struct(f"={value_type.used.offset}xQ")
        protocol, side = key_type.protocol.offset, value_type.side.offset
        for key, value in batches.map_entries(self._fds["flows"], *sizes):
            used = last.unpack_from(value)[0]
            if key[protocol] == socket.IPPROTO_TCP and after < used <= until:
                yield Tuple.of(key_type.from_buffer_copy(key), value[side]), used
            else:
                yield None

    def has_flow(self, key: bytes) -> bool:
        """Whether there is a record of this struct flow_key. For the LRU this is no use of it."""
        return syscall.map_lookup(self._fds["flows"], key, self._size("flows")) is not None

    def pages(self, name: str) -> Iterator[Page]:
        """Entries of a hash as raw bytes, some thousands at a time."""
        key, value = (ctypes.sizeof(kind) for kind in SHAPES[name])
        return batches.map_pages(self._fds[name], key, value)

    def veths(self) -> int:
        """How many veths are in the devmap."""
        return syscall.map_count(self._fds["veths"], ctypes.sizeof(U32))

    def take_resets(self) -> list[Tuple]:
        """Flows that were bypassed and then reset. Each is returned once."""
        key_type, value_type = SHAPES["resets"]
        sizes = ctypes.sizeof(key_type), ctypes.sizeof(value_type)
        return [
            Tuple.of(key_type.from_buffer_copy(key), value_type.from_buffer_copy(value).side)
            for key, value in batches.map_take(self._fds["resets"], *sizes)
        ]

    def counters(self) -> dict[Program, dict[Verdict, Count]]:
        """Every counter, also those that are 0, summed over the CPUs."""
        return {
            program: {
                verdict: Count(*self._sum("counters", program * len(Verdict) + verdict))
                for verdict in Verdict
            }
            for program in Program
        }

    def peer_counts(self) -> dict[int, PeerCount]:
        """The counts of the known peers by slot."""
        return {
            peer.slot: PeerCount(*self._sum("peer_counters", peer.slot))
            for peer in self.peers().values()
        }

    def clear_peer_count(self, slot: int) -> None:
        """Zero a slot before another peer takes it over."""
        size = self._size("peer_counters") * self._cpus
        syscall.map_update(self._fds["peer_counters"], bytes(U32(slot)), bytes(size))

    def has_tracer(self) -> bool:
        """Whether a tracer is in its place."""
        return syscall.map_lookup(self._fds["tracer"], bytes(4), 4) is not None

    def put_tracer(self, program: int) -> None:
        """Call this program (a descriptor) for every packet, in place of another tracer."""
        syscall.map_update(self._fds["tracer"], bytes(4), bytes(U32(program)))

    def delete_tracer(self) -> None:
        """Remove the tracer."""
        syscall.map_delete(self._fds["tracer"], bytes(4))

    def are_pinned(self, pins: Path) -> bool:
        """Whether the programs of now go by these maps. If not there are others, or none."""
        try:
            descriptor = syscall.obj_get(pins / "tracer")
        except (FileNotFoundError, KernelError):
            return False
        try:
            return syscall.object_id(descriptor) == syscall.object_id(self._fds["tracer"])
        finally:
            os.close(descriptor)

    def capacity(self, name: str) -> int:
        """How many entries a map can hold."""
        return syscall.map_shape(self._fds[name]).max_entries

    def _size(self, name: str) -> int:
        return ctypes.sizeof(SHAPES[name][1])

    def _entries(self, name: str) -> Iterator[tuple[ctypes.Structure, ctypes.Structure]]:
        key_type, value_type = SHAPES[name]
        sizes = ctypes.sizeof(key_type), ctypes.sizeof(value_type)
        for key, value in batches.map_entries(self._fds[name], *sizes):
            yield key_type.from_buffer_copy(key), value_type.from_buffer_copy(value)

    def _sum(self, name: str, index: int) -> list[int]:
        size = self._size(name)
        raw = syscall.map_lookup(self._fds[name], bytes(U32(index)), size * self._cpus) or b""
        rows = struct.iter_unpack(f"={size // 8}Q", raw)
        return [sum(column) for column in zip(*rows, strict=True)]


def _flow(key: bytes, value: bytes) -> Flow:
    return Flow.of(
        STRUCTS["flow_key"].from_buffer_copy(key), STRUCTS["flow"].from_buffer_copy(value)
    )


def _check_shape(name: str, descriptor: int) -> None:
    shape = syscall.map_shape(descriptor)
    key, value = (ctypes.sizeof(kind) for kind in SHAPES[name])
    if (shape.key, shape.value) != (key, value):
        msg = (
            f"pinned map {name} has keys of {shape.key} and values of {shape.value} bytes, not"
            f" {key} and {value}; run 'vxlane detach' and start the agent again"
        )
        raise ContractError(msg)
    if name == "counters" and shape.max_entries != len(Program) * len(Verdict):
        msg = "pinned counters are of another build; run 'vxlane detach' and start the agent again"
        raise ContractError(msg)
