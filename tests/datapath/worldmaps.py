# SPDX-License-Identifier: Apache-2.0
"""A world in the maps: written there, and read as it has become.

Flows are written here, through bpf(2): in production only the programs do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from frames import TCP, mac
from world import (
    BACK,
    END_POD,
    END_REMOTE,
    EPOCH,
    NEIGHBOUR_VETH,
    NIC,
    NODE_ADDRESS,
    OVERLAY_MAC,
    SEQUENCE,
    THERE,
    Approval,
    Crossing,
    Note,
    World,
    peer_of,
)

from vxlane.datapath import batches, syscall
from vxlane.datapath.abi import HEADER, Way
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Flow, Peer, Settings, Tuple

NANOSECONDS = 10**9
CLOCK_PRECISION = 20_000_000


@dataclass(frozen=True, slots=True)
class Standing:
    """A world that was put into the maps, and when (ns, CLOCK_MONOTONIC)."""

    maps: Maps
    since: int
    peers: tuple[Peer, ...]

    def flows(self) -> frozenset[Approval]:
        """The flow records now, aged as if no time had passed; not those of ended connections."""
        entries = self._entries("flows", "flow_key", "flow")
        return frozenset(
            self._approval(Flow.of(key, value), value)
            for key, value in entries
            if value.seen_out or value.seen_in
        )

    def translations(self) -> dict[bytes, bytes]:
        """The keys of translated flows, by those of what the other end sends of them."""
        entries = self._entries("translations", "flow_key", "flow_key")
        return {bytes(one): bytes(other) for one, other in entries}

    def resets(self) -> frozenset[Tuple]:
        """The flows noted as reset, which this takes away."""
        return frozenset(self.maps.take_resets())

    def _entries(self, name: str, key: str, value: str) -> list[tuple[Any, Any]]:
        """A map as the structs of the contract, with all that the agent does not read."""
        shape = syscall.map_shape(self.maps._fds[name])
        kinds = HEADER.structs[key], HEADER.structs[value]
        return [
            (kinds[0].from_buffer_copy(one), kinds[1].from_buffer_copy(other))
            for one, other in batches.map_entries(self.maps._fds[name], shape.key, shape.value)
        ]

    def _approval(self, flow: Flow, value: Any) -> Approval:
        peer = peer_of(flow.behind.remote, self.peers)
        is_translated = flow.behind != flow.tuple
        assert bool(value.translated) == is_translated
        if flow.seen_out and peer and flow.epoch == EPOCH:
            # What was seen of the way out is as the world has it.
            assert (flow.nic, flow.next_hop) == (NIC, peer.next_hop)
            assert (flow.mtu, flow.way) == (peer.mtu, peer.way)
        is_local = flow.way is Way.LOCAL
        if not is_translated:
            # What a record does not say is zero.
            assert not any([*value.nat_local, *value.nat_remote])
            assert not any([value.nat_local_port, value.nat_remote_port])
            assert not (is_local and any([value.routed, *value.macs]))
        crosses = is_local and is_translated
        return Approval(
            tuple=flow.tuple,
            out=self._age(flow.seen_out),
            into=self._age(flow.seen_in),
            epoch=flow.epoch,
            ifindex=flow.ifindex,
            is_open=flow.is_open or flow.tuple.protocol != TCP,
            closing=value.closing,
            opener=value.opener,
            behind=flow.behind if is_translated else None,
            is_confirmed=flow.is_confirmed or not is_translated,
            neighbour=flow.nic if is_local else NEIGHBOUR_VETH,
            there=_crossing(value, END_POD) if crosses else THERE,
            back=_crossing(value, END_REMOTE) if crosses else BACK,
        )

    def _age(self, seen: int) -> int | None:
        # What a program wrote is newer than `since`, or a few ms older: its clock is coarse.
        # Times are 64 bits, as programs subtract them: an age may reach back to before the boot.
        age = (self.since - seen + 2**63) % 2**64 - 2**63
        return max(0, round(age / NANOSECONDS)) if seen else None


def stand(maps: Maps, world: World) -> Standing:
    """Make the maps hold `world` and nothing else."""
    since = time.monotonic_ns()
    for cidr in maps.peers():
        maps.delete_peer(cidr)
    for address in maps.pods():
        maps.delete_pod(address)
    for peer in world.peers:
        maps.put_peer(peer)
    for pod in world.pods:
        maps.put_pod(pod)
    maps.put_settings(settings(world, since))
    _clear(maps, "flows")
    _clear(maps, "translations")
    for flow in world.flows:
        put_flow(maps, flow, since, world)
    for stray in world.strays:
        syscall.map_update(maps._fds["translations"], *(one.key for one in stray))
    _clear(maps, "resets")
    for one in world.resets:
        reset = HEADER.structs["reset"](when=since, side=one.side)
        syscall.map_update(maps._fds["resets"], one.key, bytes(reset))
    return Standing(maps, since, world.peers)


def settings(world: World, since: int) -> Settings:
    """The settings of `world` for maps that are set at `since`."""
    return Settings(
        lease_until=since + world.lease * NANOSECONDS,
        revalidate=world.revalidate * NANOSECONDS,
        revalidate_datagram=world.revalidate_datagram * NANOSECONDS,
        address=NODE_ADDRESS,
        epoch=EPOCH,
        vtep_mac=OVERLAY_MAC,
        has_direct=any(peer.way is Way.DIRECT for peer in world.peers),
        judged=world.judged,
        judged_nat=world.judged_nat,
        vtep=world.vtep,
        heard=world.heard,
        may_drop=world.may_drop,
    )


def put_flow(maps: Maps, flow: Approval, since: int, world: World, now: int | None = None) -> None:
    """Write one flow record, as it is learned in `world`; of age 0 is what is seen `now`."""
    fresh = since if now is None else now
    value = HEADER.structs["flow"](
        seen_out=_seen(flow.out, since if flow.out else fresh),
        seen_in=_seen(flow.into, since if flow.into else fresh),
        epoch=flow.epoch,
        ifindex=flow.ifindex,
        sent=SEQUENCE,
        received=SEQUENCE,
        nic=flow.neighbour,
        way=Way.LOCAL,
        side=flow.tuple.side,
        open=flow.is_open,
        closing=flow.closing,
        opener=flow.opener,
        translated=_translated(flow),
        confirmed=flow.is_confirmed,
    )
    behind = flow.behind or flow.tuple
    if flow.behind:
        value.nat_local[2], value.nat_local[3] = 0xFFFF, int(behind.local)
        value.nat_remote[2], value.nat_remote[3] = 0xFFFF, int(behind.remote)
        value.nat_local_port, value.nat_remote_port = behind.local_port, behind.remote_port
    peer = peer_of(behind.remote, world.peers)
    if flow.behind and (flow.into is not None or not peer):
        syscall.map_update(maps._fds["translations"], behind.key, flow.tuple.key)
    if peer:
        value.nic, value.mtu, value.slot, value.way = NIC, peer.mtu, peer.slot, peer.way
        value.next_hop[2], value.next_hop[3] = 0xFFFF, int(peer.next_hop)
        value.peer[2], value.peer[3] = 0xFFFF, int(peer.address)
        value.source_port = world.source_port
        value.mac[:] = mac(peer.vtep_mac)
    elif flow.behind:
        _put_crossings(value, flow)
    syscall.map_update(maps._fds["flows"], flow.tuple.key, bytes(value))


def _put_crossings(value: Any, flow: Approval) -> None:
    """Write how what each of the two pods sends crosses."""
    for end, crossing in ((END_POD, flow.there), (END_REMOTE, flow.back)):
        value.routed |= end * crossing.is_routed | (end << 2) * crossing.by_gateway
        value.macs[_source(end)] = mac(crossing.source_mac)


def _crossing(value: Any, end: int) -> Crossing:
    """How what this end sends crosses, by a struct flow."""
    return Crossing(
        is_routed=bool(value.routed & end),
        by_gateway=bool(value.routed & end << 2),
        source_mac=bytes(value.macs[_source(end)]).hex(":"),
    )


def _source(end: int) -> slice:
    """Where flow.macs has the source of what this end sends."""
    return slice(0, 6) if end == END_POD else slice(6, 12)


def _translated(flow: Approval) -> int:
    """What netfilter makes another of, as enum translated has it."""
    values = HEADER.enums["translated"]
    if not flow.behind:
        return values["TRANSLATED_NOT"]
    is_renamed = flow.behind.local != flow.tuple.local
    return values["TRANSLATED_LOCAL" if is_renamed else "TRANSLATED_REMOTE"]


def put_note(maps: Maps, note: Note, stamp: int) -> None:
    """Write what a packet with that stamp was when it went in, by the veth of its source."""
    sender = maps.pods().get(note.source)
    value = HEADER.structs["note"](
        ifindex=sender.ifindex if sender else 0,
        source_port=note.source_port,
        destination_port=note.destination_port,
        protocol=note.protocol,
        ttl=note.ttl,
        tos=note.tos,
        unfinished=note.unfinished,
        epoch=note.epoch,
        content=note.content,
        outside=note.outside,
        by_gateway=note.by_gateway,
    )
    for field, address in ((value.source, note.source), (value.destination, note.destination)):
        field[2], field[3] = 0xFFFF, int(address)
    syscall.map_update(maps._fds["notes"], stamp.to_bytes(4, "little"), bytes(value))


def _seen(age: int | None, since: int) -> int:
    # The programs' clock is some ms behind, and what it has not reached is of no age.
    return 0 if age is None else since - max(age * NANOSECONDS, CLOCK_PRECISION)


def _clear(maps: Maps, name: str) -> None:
    shape = syscall.map_shape(maps._fds[name])
    for key, _ in list(batches.map_entries(maps._fds[name], shape.key, shape.value)):
        syscall.map_delete(maps._fds[name], key)
