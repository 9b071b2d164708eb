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
from typing import Any, NamedTuple

from forwarding import Key, Packet, fits, hop, is_control, merged, read, translated
from frames import (
    ACK,
    CE,
    ECHO_REPLY,
    ECHO_REQUEST,
    ECT0,
    ENCAPSULATION,
    ETHERNET,
    FIN,
    ICMP,
    IP,
    RST,
    SYN,
    TCP,
    UDP,
    mac,
)
from testrun import Context
from world import (
    BRIDGE_MAC,
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
    # What netfilter makes of the flow; None: nothing.
    behind: Key | None = None
    is_confirmed: bool = True
    # Of a translated flow to a pod of this node: how it goes in and comes out.
    hops: int = 0
    by_gateway: bool = True
    source_mac: str = BRIDGE_MAC


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
        ):
            return None
        key = packet.key(inbound=False)
        record = self.flows.get(key)
        if not (record and self._approved(record, packet, sender, inbound=False)):
            return None
        behind = record.behind or key
        peer = self._peer(behind[1])
        if peer:
            moved = translated(frame, behind) if record.behind else frame
            return self._to_peer(moved, packet, sender, peer, context)
        receiver = self.pods.get(behind[1])
        by_gateway = record.behind is not None and record.by_gateway
        if (
            receiver
            and receiver is not sender
            and receiver.bridge == sender.bridge
            and frame[:6] == mac(sender.gateway_mac if by_gateway else receiver.mac)
            and not (record.behind and 0 < record.hops >= packet.ttl)
            and self._unguarded(receiver, packet, Guard.TO_POD)
            and fits(packet, receiver.mtu, context.gso_size)
        ):
            if not record.behind:
                return Judgement(frame, 0)
            macs = mac(record.source_mac), mac(receiver.mac)
            moved = translated(frame, behind)
            return Judgement(hop(moved, *macs, packet.tos, record.hops), 0)
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
        key = self._entering(packet.key(inbound=True))
        if key is None:
            return None
        record, pod = self.flows[key], self.pods.get(key[0])
        if (
            pod
            and packet.ttl > 1
            and self._unguarded(pod, packet, Guard.TO_POD)
            and self._approved(record, packet, pod, inbound=True)
            and fits(packet, pod.mtu, context.gso_size)
        ):
            if record.behind:
                local, remote, first, second, protocol = key
                frame = translated(frame, (remote, local, second, first, protocol))
            return Judgement(hop(frame, mac(pod.gateway_mac), mac(pod.mac), tos), 0)
        return None

    def _entering(self, seen: Key) -> Key | None:
        """The record of what a peer sends: of a flow that is so, or is so behind netfilter."""
        if seen in self.flows and not self.flows[seen].behind:
            return seen
        return next((key for key, one in self.flows.items() if one.behind == seen), None)

    def known(self) -> dict[Key, Halves]:
        """The records without the sequence numbers, which maps tell no reader."""
        plain = _progress(Halves(out=None, into=None, epoch=0, ifindex=0))
        return {
            key: replace(self._told(halves), **plain)
            for key, halves in self.flows.items()
            if (halves.out, halves.into) != (None, None)
        }

    def _told(self, halves: Halves) -> Halves:
        """What means something: of a flow that is not translated, or was not seen to go."""
        if not halves.behind:
            halves = replace(halves, is_confirmed=True)
        if halves.behind and halves.out is not None and not self._peer(halves.behind[1]):
            return halves
        return replace(halves, hops=0, by_gateway=True, source_mac=BRIDGE_MAC)

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
            if sender := self.pods.get(note.source.packed):
                self._learn_of_neighbour(frame, packet, note, sender, receiver)
            elif self._peer(note.source.packed):
                self._learn_of_peer(packet, note, receiver)

    def _learn_of_neighbour(
        self, frame: bytes, packet: Packet, note: Note, sender: Pod, receiver: Pod
    ) -> None:
        """What has come from a pod of this node: bridged, or routed if it is translated."""
        out, behind = _key_of_note(note, inbound=False), packet.key(inbound=False)
        into, before = packet.key(inbound=True), _key_of_note(note, inbound=True)
        hops = int(out != behind and note.ttl != packet.ttl)
        if not _is_same(packet, note, hops=hops) or sender is receiver:
            return
        if frame[:6] != mac(receiver.mac):
            return
        if self._is_taken(out[0], behind[0]) or self._is_taken(into[0], before[0]):
            return
        way = {
            "hops": hops,
            "by_gateway": note.by_gateway,
            "source_mac": frame[6:12].hex(":"),
        }
        self._note(packet, sender, out, behind, inbound=False, **way)
        self._note(packet, receiver, into, before, inbound=True)

    def _learn_of_peer(self, packet: Packet, note: Note, receiver: Pod) -> None:
        key, behind = packet.key(inbound=True), _key_of_note(note, inbound=True)
        if not _is_same(packet, note, hops=1):
            return
        if key != behind and not self._is_shown(key, behind, receiver):
            return
        if key != behind and behind in self.flows and not self.flows[behind].behind:
            # A flow that was so without a translation is over.
            del self.flows[behind]
        self._note(packet, receiver, key, behind, inbound=True)

    def _is_shown(self, key: Key, behind: Key, receiver: Pod) -> bool:
        """Whether what the pod sent was translated the same way before."""
        known = self.flows.get(key)
        return (
            known is not None
            and known.out is not None
            and (known.epoch, known.ifindex, known.behind) == (EPOCH, receiver.ifindex, behind)
        )

    def _is_taken(self, before: bytes, after: bytes) -> bool:
        """Whether an address has become another pod's, which NAT does not do."""
        return before != after and after in self.pods

    def _learn_at_nic(self, frame: bytes, context: Context, note: Note) -> None:
        """What has left: a tunnel to its peer, or as it is to one on our link; by its neighbour."""
        outer = read(frame)
        is_tunnel = outer is not None and (outer.protocol, outer.second) == (UDP, PORT)
        packet = read(frame[ENCAPSULATION:]) if is_tunnel else outer
        sender = packet and self.pods.get(note.source.packed)
        peer = packet and self._peer(packet.destination)
        if not (outer and packet and sender and peer):
            return
        if context.mark or not _is_same(packet, note, hops=1):
            return
        if self._is_taken(note.source.packed, packet.source):
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
            key, behind = _key_of_note(note, inbound=False), packet.key(inbound=False)
            self._note(packet, sender, key, behind, inbound=False)

    def _note(
        self, packet: Packet, pod: Pod, key: Key, behind: Key, *, inbound: bool, **way: Any
    ) -> None:
        known = self.flows.get(key)
        translation = behind if behind != key else None
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
            self.resets.discard(key)
        end = (packet.sequence + packet.size - packet.headers + is_syn) % 2**32
        fresh = Halves(
            out=None,
            into=None,
            epoch=EPOCH,
            ifindex=pod.ifindex,
            is_open=False,
            behind=translation,
            is_confirmed=False,
        )
        if not known:
            known = replace(fresh, sent=0, received=0)
        elif (known.epoch, known.ifindex, known.behind) != (EPOCH, pod.ifindex, translation):
            known = replace(fresh, **_progress(known), **{half: getattr(known, half)})
        else:
            known = replace(known, is_confirmed=True)
        before = getattr(known, reached)
        if getattr(known, half) is not None and (end - before) % 2**32 >= 2**31:
            end = before
        is_open = known.is_open or not is_syn
        is_open = is_open or packet.protocol != TCP
        self.flows[key] = replace(known, **{half: 0, reached: end, "is_open": is_open}, **way)

    def ended(self, frame: bytes) -> tuple[list[Key], bytes]:
        """The records that a SYN or FIN, in a tunnel or not, may end; and the same as an ACK."""
        for start in (0, ENCAPSULATION):
            packet = read(frame[start:])
            is_tcp = packet is not None and packet.protocol == TCP
            if packet and is_tcp and (packet.flags & FIN or packet.flags & (SYN | ACK) == SYN):
                keys = self._both(packet)
                flags = start + ETHERNET + IP + 13
                twin = frame[:flags] + bytes([ACK]) + frame[flags + 1 :]
                return [key for key in keys if key in self.flows], twin
        return [], frame

    def _both(self, packet: Packet) -> set[Key]:
        """The records of a packet, whichever way it goes, and a neighbour's of the same."""
        out = packet.key(inbound=False)
        keys = {out, self._entering(packet.key(inbound=True)) or out}
        if record := self.flows.get(out):
            local, remote, first, second, protocol = record.behind or out
            keys.add((remote, local, second, first, protocol))
        return keys

    def _approved(self, record: Halves, packet: Packet, pod: Pod, *, inbound: bool) -> bool:
        if record.behind and self.world.judged_nat:
            return False
        if (record.epoch, record.ifindex) != (EPOCH, pod.ifindex):
            return False
        own, other = (record.into, record.out) if inbound else (record.out, record.into)
        if own is None or is_control(packet):
            return False
        if packet.protocol == TCP and not record.is_open:
            return False
        world = self.world
        longest = world.revalidate if packet.protocol == TCP else world.revalidate_datagram
        if record.behind and packet.protocol == UDP:
            longest = 1
            if not record.is_confirmed:
                return False
        is_renamed = record.behind is not None and record.behind[0] != pod.address.packed
        if packet.protocol == UDP and not is_renamed:
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


def _key_of_note(note: Note, *, inbound: bool) -> Key:
    """The flow that a packet was of when it went in."""
    source, destination = note.source.packed, note.destination.packed
    if not inbound:
        return source, destination, note.source_port, note.destination_port, note.protocol
    if note.protocol == ICMP:
        sent = ECHO_REPLY if note.destination_port == ECHO_REQUEST else ECHO_REQUEST
        return destination, source, note.source_port, sent, ICMP
    return destination, source, note.destination_port, note.source_port, note.protocol


def _is_same(packet: Packet, note: Note, *, hops: int) -> bool:
    """Whether a packet is what went in, `hops` later; congestion may have been marked.

    It may be another flow's now, if it is TCP or UDP and of the same content.
    """
    went_in = note.protocol, note.ttl, note.epoch
    if went_in != (packet.protocol, (packet.ttl + hops) % 256, EPOCH):
        return False
    is_translated = _key_of_note(note, inbound=False) != packet.key(inbound=False)
    if is_translated and (packet.protocol == ICMP or note.content != packet.content):
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
    return _key_of_tuple(flow.tuple)


def flow_of(key: Key, halves: Halves) -> Approval:
    """Both as a record of the maps."""
    return Approval(
        tuple=_tuple_of(key),
        out=halves.out,
        into=halves.into,
        epoch=halves.epoch,
        ifindex=halves.ifindex,
        is_open=halves.is_open,
        behind=halves.behind and _tuple_of(halves.behind),
        is_confirmed=halves.is_confirmed,
        hops=halves.hops,
        by_gateway=halves.by_gateway,
        source_mac=halves.source_mac,
    )


def halves_of(flow: Approval) -> Halves:
    """The record itself."""
    return Halves(
        out=flow.out,
        into=flow.into,
        epoch=flow.epoch,
        ifindex=flow.ifindex,
        is_open=flow.is_open,
        behind=flow.behind and _key_of_tuple(flow.behind),
        is_confirmed=flow.is_confirmed,
        hops=flow.hops,
        by_gateway=flow.by_gateway,
        source_mac=flow.source_mac,
    )


def _key_of_tuple(one: Tuple) -> Key:
    return one.local.packed, one.remote.packed, one.local_port, one.remote_port, one.protocol


def _tuple_of(key: Key) -> Tuple:
    local, remote, *numbers = key
    return Tuple(IPv4Address(local), IPv4Address(remote), *numbers)
