# SPDX-License-Identifier: Apache-2.0
"""Oracle: what the four programs must do with a frame, worked out again from the rules alone.

Written from the rules (bpf/README.md; RFC 791, 6040, 7348; how the kernel forwards), not from the
C: a packet either is flawless and every condition for a bypass holds, or nothing happens to it.
There are no verdicts here and no order of checks. Knows World and bytes, none of vxlane's code but
the enums.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import NamedTuple

from forwarding import Key, Packet, fits, hop, is_control, merged, read
from frames import (
    ACK,
    CE,
    ECT0,
    ENCAPSULATION,
    ETHERNET,
    FIN,
    IP,
    RST,
    SYN,
    TCP,
    UDP,
    mac,
)
from testrun import Context
from world import EPOCH, NIC, NIC_MAC, NODE_ADDRESS, OVERLAY_MAC, PORT, VNI, Approval, World

from vxlane.datapath.abi import Guard, Program, Way
from vxlane.datapath.records import Peer, Pod, Tuple


class Judgement(NamedTuple):
    """What leaves, bytes and mark; `wild` bytes at those places are any."""

    frame: bytes
    mark: int
    wild: tuple[slice, ...] = ()

    def allows(self, frame: bytes, mark: int) -> bool:
        """Whether that is what leaves."""
        seen, due = bytearray(frame), bytearray(self.frame)
        for place in self.wild:
            seen[place] = due[place] = bytes(place.stop - place.start)
        return (seen, mark) == (due, self.mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """A flow record: ages in seconds."""

    out: int | None
    into: int | None
    epoch: int
    ifindex: int


class Oracle:
    """Judges frames in one world; learning changes `flows` and `resets`."""

    def __init__(self, world: World, mark: int) -> None:
        self.world, self.mark = world, mark
        self.pods: dict[bytes, Pod] = {pod.address.packed: pod for pod in world.pods}
        self.flows = {key_of(one): halves_of(one) for one in world.flows}
        self.resets: set[Key] = set()

    def judge(self, program: Program, frame: bytes, context: Context) -> Judgement | None:
        """What leaves past the kernel path; None: nothing does, the frame stays as it is."""
        if self.world.lease < 0 or context.mark:
            return None
        if program is Program.FROM_POD:
            return self._from_pod(frame, context)
        if program is Program.FROM_NIC:
            return self._from_nic(frame, context)
        return None

    def _from_pod(self, frame: bytes, context: Context) -> Judgement | None:
        packet = read(frame)
        sender = packet and self.pods.get(packet.source)
        if not (
            packet
            and sender
            and sender.ifindex == context.ifindex
            and frame[6:12] == mac(sender.mac)
            and self._unguarded(sender, packet, Guard.FROM_POD)
            and self._approved(packet, sender, inbound=False)
        ):
            return None
        peer = self._peer(packet.destination)
        if peer:
            return self._to_peer(frame, packet, sender, peer, context)
        receiver = self.pods.get(packet.destination)
        if (
            receiver
            and receiver is not sender
            and receiver.bridge == sender.bridge
            and frame[:6] == mac(receiver.mac)
            and self._unguarded(receiver, packet, Guard.TO_POD)
            and fits(packet, receiver.mtu, context.gso_size)
        ):
            return Judgement(frame, 0)
        return None

    def _to_peer(
        self, frame: bytes, packet: Packet, sender: Pod, peer: Peer, context: Context
    ) -> Judgement | None:
        through_node = frame[:6] == mac(sender.gateway_mac)
        if not (through_node and packet.ttl > 1 and peer.ifindex):
            return None
        if not fits(packet, peer.mtu, context.gso_size):
            return None
        if peer.way is Way.DIRECT:
            return Judgement(hop(frame, frame[6:12], frame[:6], packet.tos), self.mark)
        # A test run's super-packet is of no kind, and the kernel makes no room in such.
        if context.gso_size:
            return None
        inner = hop(frame, mac(OVERLAY_MAC), mac(peer.vtep_mac), packet.tos)
        ecn = packet.tos & 3
        outer = bytearray(frame[:14])
        outer += struct.pack("!BBH", 0x45, ECT0 if ecn == CE else ecn, 36 + len(inner))
        outer += struct.pack("!HHBBH", 0, 0, 64, UDP, 0)
        outer += NODE_ADDRESS.packed + peer.address.packed
        outer += struct.pack("!HHHH", 0, PORT, 16 + len(inner), 0)
        outer += struct.pack("!II", 0x08000000, VNI << 8)
        # IP identification and UDP source port are free, and so the header checksum is.
        return Judgement(bytes(outer) + inner, 0, (slice(18, 20), slice(24, 26), slice(34, 36)))

    def _from_nic(self, frame: bytes, context: Context) -> Judgement | None:
        outer = read(frame)
        # To the devices of a test's pods that MAC is another station's.
        if not outer or context.ifindex != NIC or frame[:6] != mac(NIC_MAC):
            return None
        if outer.protocol != UDP or outer.second != PORT:
            return self._from_link(frame, outer, context)
        length, _, flags, vni = struct.unpack_from("!HHII", frame[:50].ljust(50, b"\0"), 38)
        inner = frame[50:]
        packet = read(inner)
        peer = packet and self._peer(packet.source)
        if not (
            packet
            and peer
            and (length, flags, vni) == (outer.size - 20, 0x08000000, VNI << 8)
            and outer.destination == NODE_ADDRESS.packed
            and outer.source == peer.address.packed
            and inner[:6] == mac(OVERLAY_MAC) != inner[6:12]
            and not context.gso_size
            and not (packet.protocol == UDP and any(frame[40:42]) and not any(inner[40:42]))
        ):
            return None
        tos = merged(outer.tos, packet.tos)
        return None if tos is None else self._into_pod(inner, packet, tos, context)

    def _from_link(self, frame: bytes, packet: Packet, context: Context) -> Judgement | None:
        peer = self._peer(packet.source)
        if peer and peer.way is Way.DIRECT:
            return self._into_pod(frame, packet, packet.tos, context)
        return None

    def _into_pod(
        self, frame: bytes, packet: Packet, tos: int, context: Context
    ) -> Judgement | None:
        pod = self.pods.get(packet.destination)
        if (
            pod
            and packet.ttl > 1
            and self._unguarded(pod, packet, Guard.TO_POD)
            and self._approved(packet, pod, inbound=True)
            and fits(packet, pod.mtu, context.gso_size)
        ):
            return Judgement(hop(frame, mac(pod.gateway_mac), mac(pod.mac), tos), 0)
        return None

    def learn(self, program: Program, frame: bytes, context: Context) -> None:
        """Take note of a frame that has come out of the kernel path."""
        packet = read(frame)
        if self.world.lease < 0 or not packet:
            return
        sender = self.pods.get(packet.source)
        receiver = self.pods.get(packet.destination)
        if program is Program.TO_OVERLAY:
            if sender and self._peer(packet.destination) and context.mark != self.mark:
                self._note(packet, sender, inbound=False)
        elif program is Program.TO_POD and receiver and receiver.ifindex == context.ifindex:
            if sender:
                self._note(packet, sender, inbound=False)
            if sender or self._peer(packet.source):
                self._note(packet, receiver, inbound=True)

    def _note(self, packet: Packet, pod: Pod, *, inbound: bool) -> None:
        key = packet.key(inbound=inbound)
        known = self.flows.get(key)
        if packet.protocol == TCP and packet.flags & RST:
            if known and known.out is not None and known.into is not None:
                self.resets.add(key)
            self.flows.pop(key, None)
        elif not is_control(packet):
            if not known or (known.epoch, known.ifindex) != (EPOCH, pod.ifindex):
                known = Halves(out=None, into=None, epoch=EPOCH, ifindex=pod.ifindex)
            self.flows[key] = replace(known, **{"into" if inbound else "out": 0})

    def ended(self, frame: bytes) -> tuple[list[Key], bytes]:
        """The records that a SYN or FIN, in a tunnel or not, may end; and the same as an ACK."""
        for start in (0, ENCAPSULATION):
            packet = read(frame[start:])
            if packet and packet.protocol == TCP and packet.flags & (SYN | FIN):
                keys = [packet.key(inbound=inbound) for inbound in (False, True)]
                flags = start + ETHERNET + IP + 13
                twin = frame[:flags] + bytes([ACK]) + frame[flags + 1 :]
                return [key for key in keys if key in self.flows], twin
        return [], frame

    def _approved(self, packet: Packet, pod: Pod, *, inbound: bool) -> bool:
        record = self.flows.get(packet.key(inbound=inbound))
        if not record or (record.epoch, record.ifindex) != (EPOCH, pod.ifindex):
            return False
        own, other = (record.into, record.out) if inbound else (record.out, record.into)
        if own is None or is_control(packet):
            return False
        world = self.world
        longest = world.revalidate if packet.protocol == TCP else world.revalidate_datagram
        if packet.protocol == UDP:
            return own < longest
        return other is not None and max(own, other) < longest

    def _unguarded(self, pod: Pod, packet: Packet, way: Guard) -> bool:
        if self.world.judged or pod.guard & Guard.JUDGED:
            return False
        # TCP goes both ways or not at all.
        return not (pod.guard if packet.protocol == TCP else pod.guard & way)

    def _peer(self, address: bytes) -> Peer | None:
        number = int.from_bytes(address, "big")
        for peer in self.world.peers:
            if number & int(peer.cidr.netmask) == int(peer.cidr.network_address):
                return peer
        return None


def key_of(flow: Approval) -> Key:
    """The key of a record as the oracle has it."""
    one = flow.tuple
    return one.local.packed, one.remote.packed, one.local_port, one.remote_port, one.protocol


def flow_of(key: Key, halves: Halves) -> Approval:
    """Both as a record of the maps."""
    local, remote, *numbers = key
    return Approval(
        tuple=Tuple(IPv4Address(local), IPv4Address(remote), *numbers),
        out=halves.out,
        into=halves.into,
        epoch=halves.epoch,
        ifindex=halves.ifindex,
    )


def halves_of(flow: Approval) -> Halves:
    """The record itself."""
    return Halves(out=flow.out, into=flow.into, epoch=flow.epoch, ifindex=flow.ifindex)
