# SPDX-License-Identifier: Apache-2.0
"""Learning: what the exits make of a frame that has come out, worked out again from the rules.

Knows World and bytes, as the oracle does, and none of the C.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from forwarding import Key, Packet, is_fin, priority, read
from frames import ACK, CE, ECT0, ENCAPSULATION, ETHERNET, FIN, ICMP, IP, RST, SYN, TCP, UDP, mac
from halves import Halves, halves_of, key_of, key_of_note
from testrun import Context
from world import (
    BRIDGE_MAC,
    END_POD,
    END_REMOTE,
    EPOCH,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_PEER,
    OVERLAY_MAC,
    PORT,
    ROUTER_MAC,
    VNI,
    Note,
    World,
)

from vxlane.datapath.abi import Program, Way
from vxlane.datapath.records import Peer, Pod


class Learner:
    """The records of one world; learning changes `flows` and `resets`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pods: dict[bytes, Pod] = {pod.address.packed: pod for pod in world.pods}
        self.flows = {key_of(one): halves_of(one) for one in world.flows}
        self.resets: set[Key] = set()

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
        out, behind = key_of_note(note, inbound=False), packet.key(inbound=False)
        into, before = packet.key(inbound=True), key_of_note(note, inbound=True)
        hops = int(out != behind and note.ttl != packet.ttl)
        if not _is_same(packet, note, hops=hops) or sender is receiver:
            return
        if frame[:6] != mac(receiver.mac):
            return
        if self._is_taken(packet, note):
            return
        way = {
            "hops": hops,
            "by_gateway": note.by_gateway,
            "source_mac": frame[6:12].hex(":"),
        }
        self._note(packet, sender, out, behind, inbound=False, **way)
        if packet.protocol != TCP or packet.flags & (SYN | ACK) != SYN:
            self._note(packet, receiver, into, before, inbound=True)
        elif known := self.flows.get(into):
            anew = {"out": None, "into": None, "is_open": False, "closing": 0, "opener": None}
            self.flows[into] = replace(known, **anew)
            self.resets.discard(into)

    def _learn_of_peer(self, packet: Packet, note: Note, receiver: Pod) -> None:
        key, behind = packet.key(inbound=True), key_of_note(note, inbound=True)
        if not _is_same(packet, note, hops=1) or self._is_taken(packet, note):
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

    def _is_taken(self, packet: Packet, note: Note) -> bool:
        """Whether an address has become another pod's, which NAT does not do."""
        ends = (
            (note.source.packed, packet.source),
            (packet.destination, note.destination.packed),
        )
        return any(
            before != after and (after in self.pods or self._peer(after) is not None)
            for before, after in ends
        )

    def _learn_at_nic(self, frame: bytes, context: Context, note: Note) -> None:
        """What has left: a tunnel to its peer, or as it is to one on our link; by its neighbour."""
        outer = read(frame)
        is_tunnel = outer is not None and (outer.protocol, outer.second) == (UDP, PORT)
        packet = read(frame[ENCAPSULATION:]) if is_tunnel else outer
        sender = packet and self.pods.get(note.source.packed)
        peer = packet and self._peer(packet.destination)
        if not (outer and packet and sender and peer):
            return
        if (context.mark, context.priority) != (0, priority(packet.tos)):
            return
        if not _is_same(packet, note, hops=1) or self._is_taken(packet, note):
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
            key, behind = key_of_note(note, inbound=False), packet.key(inbound=False)
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
            if known:
                self.flows[key] = replace(known, out=None, into=None, is_open=False)
            return
        is_syn = packet.protocol == TCP and bool(packet.flags & SYN)
        if packet.protocol == TCP and (packet.flags & FIN or not packet.flags & (SYN | ACK)):
            return
        opener = known.opener if known else None
        if is_syn and not packet.flags & ACK:
            known, opener = None, half
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
            kept = {half: getattr(known, half), "closing": known.closing}
            known = replace(fresh, **_progress(known), **kept)
        else:
            known = replace(known, is_confirmed=True)
        before = getattr(known, reached)
        if getattr(known, half) is not None and (end - before) % 2**32 >= 2**31:
            end = before
        is_open = known.is_open or packet.protocol != TCP
        is_open = is_open or (not is_syn and opener in {None, half})
        now = {half: 0, reached: end, "is_open": is_open, "opener": opener}
        self.flows[key] = replace(known, **now, **way)

    def ended(self, frame: bytes) -> tuple[list[Key], bytes]:
        """The records that a SYN, in a tunnel or not, may end; and the same as an ACK."""
        for start, packet in _segments(frame):
            opens = packet.flags & (SYN | ACK) == SYN
            # No connection has a SYN with FIN.
            if opens or packet.flags & (SYN | FIN) == SYN | FIN:
                flags = start + ETHERNET + IP + 13
                twin = frame[:flags] + bytes([ACK]) + frame[flags + 1 :]
                return self._both(packet, opens=opens), twin
        return [], frame

    def is_closing(self, frame: bytes) -> bool:
        """Whether a frame, in a tunnel or not, may be of a connection that closes."""
        return any(
            is_fin(packet) or self.flows[key].closing
            for _, packet in _segments(frame)
            for key in self._both(packet, opens=False)
        )

    def closed(self, frame: bytes) -> list[Key]:
        """The records that a FIN, in a tunnel or not, closes."""
        return [
            key
            for _, packet in _segments(frame)
            if packet.flags & (SYN | FIN) == FIN
            for key in self._both(packet, opens=False)
        ]

    def finished(self, frame: bytes) -> list[Key]:
        """The records that may end with a packet, as the ACK of FINs: a neighbour's too."""
        return [
            key
            for _, packet in _segments(frame)
            if packet.size == packet.headers and not is_fin(packet)
            for keys in [self._both(packet, opens=False)]
            if any(self.flows[one].closing == END_POD | END_REMOTE for one in keys)
            for key in keys
        ]

    def _both(self, packet: Packet, *, opens: bool) -> list[Key]:
        """The records of a packet, whichever way it goes, and a neighbour's of the same.

        What a peer `opens` is no flow that netfilter translates.
        """
        out, into = packet.key(inbound=False), packet.key(inbound=True)
        entering, keys = self._entering(into), {out}
        if entering and (entering == into or not opens):
            keys.add(entering)
        if record := self.flows.get(out):
            local, remote, first, second, protocol = record.behind or out
            keys.add((remote, local, second, first, protocol))
        return [key for key in keys if key in self.flows]

    def _entering(self, seen: Key) -> Key | None:
        """The record of what a peer sends: of a flow that is so, or is so behind netfilter."""
        if seen in self.flows and not self.flows[seen].behind:
            return seen
        return next((key for key, one in self.flows.items() if one.behind == seen), None)

    def _peer(self, address: bytes) -> Peer | None:
        number = int.from_bytes(address, "big")
        for peer in self.world.peers:
            if number & int(peer.cidr.netmask) == int(peer.cidr.network_address):
                return peer
        return None


def _segments(frame: bytes) -> list[tuple[int, Packet]]:
    """The TCP segment of a frame and where its own frame begins, in a tunnel or not."""
    packets = ((start, read(frame[start:])) for start in (0, ENCAPSULATION))
    return [(start, packet) for start, packet in packets if packet and packet.protocol == TCP]


def _progress(halves: Halves) -> dict[str, Any]:
    return {"sent": halves.sent, "received": halves.received, "opener": halves.opener}


def _is_same(packet: Packet, note: Note, *, hops: int) -> bool:
    """Whether a packet is what went in, `hops` later; congestion may have been marked.

    It may be another flow's now, if it is TCP or UDP and of the same content.
    """
    went_in = note.protocol, note.ttl, note.epoch
    if went_in != (packet.protocol, (packet.ttl + hops) % 256, EPOCH):
        return False
    is_translated = key_of_note(note, inbound=False) != packet.key(inbound=False)
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
