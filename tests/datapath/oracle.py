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
from world import (
    EPOCH,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_PEER,
    OVERLAY_MAC,
    PORT,
    ROUTER_MAC,
    SEQUENCE,
    VNI,
    Approval,
    Note,
    World,
)

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
    # What each side's next byte is numbered; of TCP.
    sent: int = SEQUENCE
    received: int = SEQUENCE
    is_open: bool = True


class Oracle:
    """Judges frames in one world; learning changes `flows` and `resets`."""

    def __init__(self, world: World) -> None:
        self.world = world
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
        if not (through_node and packet.ttl > 1):
            return None
        if not fits(packet, peer.mtu, context.gso_size):
            return None
        if peer.way is Way.DIRECT:
            return Judgement(hop(frame, frame[6:12], frame[:6], packet.tos), 0)
        # A test run's super-packet is of no kind, and the kernel makes no room in such.
        if context.gso_size:
            return None
        inner = hop(frame, mac(OVERLAY_MAC), mac(peer.vtep_mac), packet.tos)
        ecn = packet.tos & 3
        outer = bytearray(frame[:14])
        outer += struct.pack("!BBH", 0x45, ECT0 if ecn == CE else ecn, 36 + len(inner))
        outer += struct.pack("!HHBBH", 0, 0, 64, UDP, 0)
        outer += NODE_ADDRESS.packed + peer.address.packed
        outer += struct.pack("!HHHH", self.world.source_port, PORT, 16 + len(inner), 0)
        outer += struct.pack("!II", 0x08000000, VNI << 8)
        # IP identification is free, and so the header checksum is.
        return Judgement(bytes(outer) + inner, 0, (slice(18, 20), slice(24, 26)))

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

    def known(self) -> dict[Key, Halves]:
        """The records without the sequence numbers, which maps tell no reader."""
        plain = _progress(Halves(out=None, into=None, epoch=0, ifindex=0))
        return {key: replace(halves, **plain) for key, halves in self.flows.items()}

    def learn(self, program: Program, frame: bytes, context: Context, note: Note | None) -> None:
        """Take account of a frame that has come out of the kernel path, having been `note`."""
        if self.world.lease < 0 or not note:
            return
        if program is Program.TO_NIC:
            self._learn_at_nic(frame, context, note)
        elif program is Program.TO_POD and (packet := read(frame)):
            receiver = self.pods.get(packet.destination)
            if not receiver or receiver.ifindex != context.ifindex:
                return
            sender = self.pods.get(packet.source)
            is_same = _is_same(packet, note, hops=0 if sender else 1)
            if sender and is_same:
                self._note(packet, sender, inbound=False)
            if (sender or self._peer(packet.source)) and is_same:
                self._note(packet, receiver, inbound=True)

    def _learn_at_nic(self, frame: bytes, context: Context, note: Note) -> None:
        """What has left: a tunnel to its peer, or as it is to one on our link; by its neighbour."""
        outer = read(frame)
        is_tunnel = outer is not None and (outer.protocol, outer.second) == (UDP, PORT)
        packet = read(frame[ENCAPSULATION:]) if is_tunnel else outer
        sender = packet and self.pods.get(packet.source)
        peer = packet and self._peer(packet.destination)
        if not (outer and packet and sender and peer):
            return
        if context.mark or not _is_same(packet, note, hops=1):
            return
        if is_tunnel != (peer.way is Way.TUNNEL) or (
            is_tunnel and not _is_ours(frame, packet, peer)
        ):
            return
        routed = (context.ifindex, frame[:12]) == (NIC, mac(ROUTER_MAC) + mac(NIC_MAC))
        if not is_tunnel:
            # There is a route by the NIC to the other peer only.
            routed = routed and peer.cidr == OTHER_PEER.cidr
        if routed or (packet.protocol == TCP and packet.flags & RST):
            self._note(packet, sender, inbound=False)

    def _note(self, packet: Packet, pod: Pod, *, inbound: bool) -> None:
        key = packet.key(inbound=inbound)
        known = self.flows.get(key)
        half, reached = ("into", "received") if inbound else ("out", "sent")
        if packet.protocol == TCP and packet.flags & RST:
            is_whole = known and known.out is not None and known.into is not None
            if known and is_whole and packet.sequence == getattr(known, reached):
                self.resets.add(key)
            self.flows.pop(key, None)
            return
        is_syn = packet.protocol == TCP and bool(packet.flags & SYN)
        if packet.protocol == TCP and (packet.flags & FIN or not packet.flags & (SYN | ACK)):
            return
        if is_syn and not packet.flags & ACK:
            known = None
        end = (packet.sequence + packet.size - packet.headers + is_syn) % 2**32
        fresh = Halves(out=None, into=None, epoch=EPOCH, ifindex=pod.ifindex, is_open=False)
        if not known:
            known = replace(fresh, sent=0, received=0)
        elif (known.epoch, known.ifindex) != (EPOCH, pod.ifindex):
            known = replace(fresh, **_progress(known), **{half: getattr(known, half)})
        before = getattr(known, reached)
        if getattr(known, half) is not None and (end - before) % 2**32 >= 2**31:
            end = before
        is_open = known.is_open or not is_syn
        is_open = is_open or packet.protocol != TCP
        self.flows[key] = replace(known, **{half: 0, reached: end, "is_open": is_open})

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
        if packet.protocol == TCP and not record.is_open:
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


def _progress(halves: Halves) -> dict[str, int]:
    return {"sent": halves.sent, "received": halves.received}


def _is_same(packet: Packet, note: Note, *, hops: int) -> bool:
    """Whether a packet is what went in, `hops` later; congestion may have been marked."""
    went_in = (
        note.source.packed,
        note.destination.packed,
        note.source_port,
        note.destination_port,
        note.protocol,
        note.ttl,
        note.epoch,
    )
    flow = packet.source, packet.destination, packet.first, packet.second, packet.protocol
    if went_in != (*flow, (packet.ttl + hops) % 256, EPOCH):
        return False
    return packet.tos == note.tos or (note.tos & CE != 0 and packet.tos == note.tos | CE)


def _is_ours(frame: bytes, packet: Packet, peer: Peer) -> bool:
    """Whether the outer packet is the one that the bypass would send."""
    ecn = packet.tos & CE
    outer = frame[14:34]
    length, _, flags, vni = struct.unpack_from("!HHII", frame, 38)
    return (
        (outer[1], outer[6:8], outer[8]) == (ECT0 if ecn == CE else ecn, bytes(2), 64)
        and frame[26:34] == NODE_ADDRESS.packed + peer.address.packed
        and (length, flags, vni) == (len(frame) - 34, 0x08000000, VNI << 8)
        and frame[50:62] == mac(peer.vtep_mac) + mac(OVERLAY_MAC)
    )


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
        is_open=halves.is_open,
    )


def halves_of(flow: Approval) -> Halves:
    """The record itself."""
    return Halves(
        out=flow.out,
        into=flow.into,
        epoch=flow.epoch,
        ifindex=flow.ifindex,
        is_open=flow.is_open,
    )
