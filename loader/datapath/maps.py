"""The pinned maps as frozen dataclasses: the one module that knows how values lie in memory.

Addresses are `ipaddress` objects, MACs lower-case colon strings, times ns of CLOCK_MONOTONIC.
Imports abi, syscall and errors; works in any process, with no bcc and no netlink.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vxlane.loader.datapath import syscall
from vxlane.loader.datapath.abi import HEADER, Guard, Program, Verdict, Way
from vxlane.loader.errors import ContractError

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own is 3.11's

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_MAPPED = bytes(10) + b"\xff\xff"
_STRUCTS = HEADER.structs
_U32 = ctypes.c_uint32
# name -> (key, value): what bpf/maps.h declares, checked when a map is opened.
_SHAPES: dict[str, tuple[type[Any], type[Any]]] = {
    "settings": (_U32, _STRUCTS["settings"]),
    "peers": (_STRUCTS["cidr"], _STRUCTS["peer"]),
    "vteps": (_STRUCTS["address"], _U32),
    "pods": (_STRUCTS["address"], _STRUCTS["pod"]),
    "veths": (_U32, _U32),
    "flows": (_STRUCTS["flow_key"], _STRUCTS["flow"]),
    "resets": (_STRUCTS["flow_key"], ctypes.c_uint64),
    "counters": (_U32, _STRUCTS["counter"]),
    "peer_counters": (_U32, _STRUCTS["peer_counter"]),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node.

    `ifindex` 0 says that there is no usable way to it now; `mtu` is the largest inner IP packet
    in bytes; `slot` is its index among the peer counters.
    """

    cidr: IPNetwork
    address: IPAddress
    next_hop: IPAddress
    ifindex: int
    mtu: int
    slot: int
    vtep_mac: str
    way: Way = Way.TUNNEL


@dataclass(frozen=True, slots=True)
class Pod:
    """A local endpoint: `ifindex` is its veth's host end, `bridge` the bridge's ifindex."""

    address: IPAddress
    ifindex: int
    bridge: int
    mtu: int
    mac: str
    gateway_mac: str
    guard: Guard


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent tells the programs; times in ns of CLOCK_MONOTONIC."""

    lease_until: int
    revalidate: int
    revalidate_datagram: int
    address: IPAddress
    epoch: int
    port_min: int
    port_max: int
    vtep_mac: str
    has_direct: bool = False


@dataclass(frozen=True, slots=True)
class Tuple:
    """A 5-tuple as its local pod sees it; of an ICMP echo, identifier and type stand for ports."""

    local: IPAddress
    remote: IPAddress
    local_port: int
    remote_port: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow of a local pod and when each half last came out of the kernel path (ns, 0: never).

    `ifindex` is that of the pod it was approved for.
    """

    tuple: Tuple
    seen_out: int
    seen_in: int
    epoch: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class Count:
    """Packets as skbs: a GSO super-packet is one; bytes with the Ethernet header."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PeerCount:
    """What the bypass carried for one peer."""

    tx_packets: int
    tx_bytes: int
    rx_packets: int
    rx_bytes: int


class Maps:
    """The maps below one pin directory, opened."""

    def __init__(self, descriptors: dict[str, int]) -> None:
        self._fds = descriptors
        self._cpus = syscall.possible_cpus()

    @classmethod
    def open(cls, pins: Path) -> Maps:
        """Raises FileNotFoundError where nothing is pinned, ContractError on another layout."""
        maps = cls({})
        try:
            for name in _SHAPES:
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
        found = {}
        for key, value in self._entries("peers"):
            cidr = _cidr(key)
            found[cidr] = Peer(
                cidr,
                _address(value, "address"),
                _address(value, "next_hop"),
                value.ifindex,
                value.mtu,
                value.slot,
                _mac(value.vtep_mac),
                Way(value.way),
            )
        return found

    def put_peer(self, peer: Peer) -> None:
        """The new VTEP's entry goes first and an old one last: a peer is never without."""
        value = _peer_value(peer)
        before = self._match(peer.cidr)
        syscall.map_update(self._fds["vteps"], _mapped(peer.address), bytes(_U32(peer.slot)))
        syscall.map_update(self._fds["peers"], _cidr_key(peer.cidr), bytes(value))
        if before and before.slot == peer.slot and bytes(before.address) != bytes(value.address):
            self._forget_vtep(before)

    def has_peer(self, peer: Peer) -> bool:
        """Whether the programs find exactly this for the peer's CIDR."""
        match = self._match(peer.cidr)
        return match is not None and bytes(match) == bytes(_peer_value(peer))

    def delete_peer(self, cidr: IPNetwork) -> None:
        """Forget a peer, and its VTEP unless another peer has taken that address over."""
        match = self._match(cidr)
        if match and syscall.map_delete(self._fds["peers"], _cidr_key(cidr)):
            self._forget_vtep(match)

    def _match(self, cidr: IPNetwork) -> Any | None:
        """The longest match: where there is no such peer, that may be a wider one."""
        raw = syscall.map_lookup(self._fds["peers"], _cidr_key(cidr), self._size("peers"))
        return _STRUCTS["peer"].from_buffer_copy(raw) if raw else None

    def _forget_vtep(self, gone: Any) -> None:
        owner = syscall.map_lookup(self._fds["vteps"], bytes(gone.address), self._size("vteps"))
        if owner == bytes(_U32(gone.slot)):
            syscall.map_delete(self._fds["vteps"], bytes(gone.address))

    def pods(self) -> dict[IPAddress, Pod]:
        """Pods by address."""
        found = {}
        for key, value in self._entries("pods"):
            address = _unmapped(bytes(key))
            found[address] = Pod(
                address,
                value.ifindex,
                value.bridge,
                value.mtu,
                _mac(value.mac),
                _mac(value.gateway_mac),
                Guard(value.guard),
            )
        return found

    def put_pod(self, pod: Pod) -> None:
        """Add or replace; raises KernelError where the map is full or the veth is gone.

        Its veth is looked up in the calling thread's network namespace, and followed by the
        kernel: once it is gone no packet is put into it, whatever this map still says.
        """
        value = _STRUCTS["pod"](
            ifindex=pod.ifindex, bridge=pod.bridge, mtu=pod.mtu, guard=int(pod.guard)
        )
        _fill(value.mac, _mac_bytes(pod.mac))
        _fill(value.gateway_mac, _mac_bytes(pod.gateway_mac))
        syscall.devmap_put(self._fds["veths"], pod.ifindex)
        syscall.map_update(self._fds["pods"], _mapped(pod.address), bytes(value))

    def delete_pod(self, address: IPAddress) -> None:
        """Forget a pod; from here on its packets take the kernel path."""
        syscall.map_delete(self._fds["pods"], _mapped(address))

    def delete_veth(self, ifindex: int) -> None:
        """Put nothing into it any more: of a veth that goes on without being a pod's of ours."""
        syscall.map_delete(self._fds["veths"], bytes(_U32(ifindex)))

    def settings(self) -> Settings:
        """Zeros until an agent has written them."""
        raw = syscall.map_lookup(self._fds["settings"], bytes(4), self._size("settings"))
        value = _STRUCTS["settings"].from_buffer_copy(raw or b"")
        return Settings(
            value.lease_until,
            value.revalidate,
            value.revalidate_datagram,
            _address(value, "address"),
            value.epoch,
            value.port_min,
            value.port_max,
            _mac(value.vtep_mac),
            bool(value.has_direct),
        )

    def put_settings(self, settings: Settings) -> None:
        """Replace all settings; a program sees old fields or new ones, each whole."""
        value = _STRUCTS["settings"](
            lease_until=settings.lease_until,
            revalidate=settings.revalidate,
            revalidate_datagram=settings.revalidate_datagram,
            epoch=settings.epoch,
            port_min=settings.port_min,
            port_max=settings.port_max,
            has_direct=settings.has_direct,
        )
        _fill(value.address, _mapped(settings.address))
        _fill(value.vtep_mac, _mac_bytes(settings.vtep_mac))
        syscall.map_update(self._fds["settings"], bytes(4), bytes(value))

    def flows(self) -> Iterator[Flow]:
        """Every record, live or stale; order is the kernel's."""
        for key, value in self._entries("flows"):
            yield Flow(_tuple(key), value.seen_out, value.seen_in, value.epoch, value.ifindex)

    def take_resets(self) -> list[Tuple]:
        """Flows that a RST ended after they were bypassed; each is told once."""
        keys = list(syscall.map_keys(self._fds["resets"], ctypes.sizeof(_STRUCTS["flow_key"])))
        for key in keys:
            syscall.map_delete(self._fds["resets"], key)
        return [_tuple(_STRUCTS["flow_key"].from_buffer_copy(key)) for key in keys]

    def counters(self) -> dict[Program, dict[Verdict, Count]]:
        """Every counter, zeros too, summed over the CPUs."""
        return {
            program: {
                verdict: Count(*self._sum("counters", program * len(Verdict) + verdict))
                for verdict in Verdict
            }
            for program in Program
        }

    def peer_counts(self) -> dict[int, PeerCount]:
        """By slot, for the peers that are known now."""
        return {
            peer.slot: PeerCount(*self._sum("peer_counters", peer.slot))
            for peer in self.peers().values()
        }

    def clear_peer_count(self, slot: int) -> None:
        """Zero a slot before another peer takes it over."""
        size = self._size("peer_counters") * self._cpus
        syscall.map_update(self._fds["peer_counters"], bytes(_U32(slot)), bytes(size))

    def capacity(self, name: str) -> int:
        """How many entries a map can hold."""
        return syscall.map_shape(self._fds[name]).max_entries

    def _size(self, name: str) -> int:
        return ctypes.sizeof(_SHAPES[name][1])

    def _entries(self, name: str) -> Iterator[tuple[ctypes.Structure, ctypes.Structure]]:
        key_type, value_type = _SHAPES[name]
        for key in syscall.map_keys(self._fds[name], ctypes.sizeof(key_type)):
            raw = syscall.map_lookup(self._fds[name], key, ctypes.sizeof(value_type))
            if raw is not None:
                yield key_type.from_buffer_copy(key), value_type.from_buffer_copy(raw)

    def _sum(self, name: str, index: int) -> list[int]:
        size = self._size(name)
        raw = syscall.map_lookup(self._fds[name], bytes(_U32(index)), size * self._cpus) or b""
        rows = struct.iter_unpack(f"={size // 8}Q", raw)
        return [sum(column) for column in zip(*rows, strict=True)]


def _check_shape(name: str, descriptor: int) -> None:
    shape = syscall.map_shape(descriptor)
    key, value = (ctypes.sizeof(kind) for kind in _SHAPES[name])
    if (shape.key, shape.value) != (key, value):
        msg = (
            f"pinned map {name} has keys of {shape.key} and values of {shape.value} bytes, not"
            f" {key} and {value}; run 'vxlane detach' and start the agent again"
        )
        raise ContractError(msg)
    if name == "counters" and shape.max_entries != len(Program) * len(Verdict):
        msg = "pinned counters are of another build; run 'vxlane detach' and start the agent again"
        raise ContractError(msg)


def _peer_value(peer: Peer) -> Any:
    value = _STRUCTS["peer"](
        ifindex=peer.ifindex,
        mtu=peer.mtu,
        slot=peer.slot,
        way=int(peer.way),
    )
    _fill(value.address, _mapped(peer.address))
    _fill(value.next_hop, _mapped(peer.next_hop))
    _fill(value.vtep_mac, _mac_bytes(peer.vtep_mac))
    return value


def _fill(array: ctypes.Array[ctypes.c_uint8], data: bytes) -> None:
    ctypes.memmove(array, data, ctypes.sizeof(array))


def _mapped(address: IPAddress) -> bytes:
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def _unmapped(raw: bytes) -> IPAddress:
    return IPv4Address(raw[12:]) if raw.startswith(_MAPPED) else IPv6Address(raw)


def _address(value: ctypes.Structure, field: str) -> IPAddress:
    return _unmapped(bytes(getattr(value, field)))


def _tuple(key: ctypes.Structure) -> Tuple:
    return Tuple(
        _address(key, "local"),
        _address(key, "remote"),
        key.local_port,
        key.remote_port,
        key.protocol,
    )


def _cidr_key(cidr: IPNetwork) -> bytes:
    key = _STRUCTS["cidr"](prefix_len=cidr.prefixlen + (96 if cidr.version == 4 else 0))
    _fill(key.address, _mapped(cidr.network_address))
    return bytes(key)


def _cidr(key: ctypes.Structure) -> IPNetwork:
    address = _address(key, "address")
    if isinstance(address, IPv4Address):
        return IPv4Network((address, key.prefix_len - 96))
    return IPv6Network((address, key.prefix_len))


def _mac(raw: ctypes.Array[ctypes.c_uint8]) -> str:
    return bytes(raw).hex(":")


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
