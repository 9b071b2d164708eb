# SPDX-License-Identifier: Apache-2.0
"""Learning: what the exits make of a frame that has come out, worked out again from the rules.

Knows World and bytes, as the oracle does, and none of the C.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from forwarding import Key, Packet, is_fin, priority, read, reverse
from frames import ACK, CE, ECT0, ENCAPSULATION, ETHERNET, FIN, ICMP, IP, RST, SYN, TCP, UDP, mac
from halves import Halves, halves_of, key_of, key_of_note
from testrun import Context
from world import (
    ANSWERED,
    BACK,
    END_POD,
    END_REMOTE,
    ENDS,
    EPOCH,
    NEIGHBOUR_VETH,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OTHER_PEER,
    OVERLAY_MAC,
    PORT,
    ROUTER_MAC,
    SEQUENCE,
    THERE,
    UNSEEN,
    VNI,
    Crossing,
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
        return {
            key: replace(self._told(key), sent=SEQUENCE, received=SEQUENCE)
            for key, halves in self.flows.items()
            if (halves.out, halves.into) != (None, None)
        }

    def _told(self, key: Key) -> Halves:
        """What means something: of a flow that is translated, or between two pods."""
        halves = self.flows[key]
        if not halves.behind:
            halves = replace(halves, is_confirmed=True)
        if not self._is_local(key):
            halves = replace(halves, neighbour=NEIGHBOUR_VETH)
        if halves.behind and self._is_local(key):
            return halves
        return replace(halves, there=THERE, back=BACK)

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
        before, after = key_of_note(note), packet.key
        hops = int(before != after and note.ttl != packet.ttl)
        if not _is_same(packet, note, hops=hops) or sender is receiver:
            return
        if frame[:6] != mac(receiver.mac):
            return
        if self._is_taken(packet, note):
            return
        way = Crossing(
            is_routed=bool(hops), by_gateway=note.by_gateway, source_mac=frame[6:12].hex(":")
        )
        back = reverse(after)
        is_back = before not in self.flows and back in self.flows and self._is_local(back)
        if before != after:
            self._give_away(before if is_back else after)
        if is_back:
            ends = receiver.ifindex, sender.ifindex
            self._note(packet, ends, back, reverse(before), inbound=True, back=way)
        else:
            ends = sender.ifindex, receiver.ifindex
            self._note(packet, ends, before, after, inbound=False, there=way)

    def _learn_of_peer(self, packet: Packet, note: Note, receiver: Pod) -> None:
        key, behind = reverse(packet.key), reverse(key_of_note(note))
        if not _is_same(packet, note, hops=1) or self._is_taken(packet, note):
            return
        if key != behind:
            if not self._is_shown(key, behind, receiver):
                return
            self._give_away(behind)
        self._note(packet, (receiver.ifindex, None), key, behind, inbound=True)

    def _give_away(self, behind: Key) -> None:
        """A flow that was so without a translation is over."""
        for key in (behind, reverse(behind)):
            if key in self.flows and not self.flows[key].behind:
                del self.flows[key]

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
            ends = sender.ifindex, None
            self._note(packet, ends, key_of_note(note), packet.key, inbound=False)

    def _note(
        self,
        packet: Packet,
        ends: tuple[int, int | None],
        key: Key,
        behind: Key,
        *,
        inbound: bool,
        **way: Crossing,
    ) -> None:
        """`ends`: the veths of the record's pod, and of the other one if that is on this node."""
        known = self.flows.get(key)
        translation = behind if behind != key else None
        half, reached = ("into", "received") if inbound else ("out", "sent")
        sender, receiver = (END_REMOTE, END_POD) if inbound else (END_POD, END_REMOTE)
        if packet.protocol == TCP and packet.flags & RST:
            self._reset(key, packet.sequence, reached)
            return
        is_syn = packet.protocol == TCP and bool(packet.flags & SYN)
        if packet.protocol == TCP and (packet.flags & FIN or not packet.flags & (SYN | ACK)):
            return
        opener = known.opener if known else 0
        is_answered = known is not None and (known.out if inbound else known.into) is not None
        if is_syn and not packet.flags & ACK:
            known, opener = None, sender
        elif is_syn and opener == receiver:
            opener |= ANSWERED
        fresh = Halves(
            out=None,
            into=None,
            epoch=EPOCH,
            ifindex=ends[0],
            neighbour=ends[1] or NEIGHBOUR_VETH,
            is_open=False,
            behind=translation,
            is_confirmed=False,
            there=UNSEEN,
            back=UNSEEN,
        )
        if not known:
            known = replace(fresh, sent=0, received=0)
        elif self._is_alike(key, known, fresh, is_local=ends[1] is not None):
            known = replace(known, is_confirmed=True)
        else:
            progress = {"sent": known.sent, "received": known.received, "closing": known.closing}
            known = replace(fresh, **progress, **{half: getattr(known, half)})
        end = (packet.sequence + packet.size - packet.headers + is_syn) % 2**32
        before = getattr(known, reached)
        if getattr(known, half) is not None and (end - before) % 2**32 >= 2**31:
            end = before
        is_open = known.is_open or packet.protocol != TCP
        is_open = is_open or (not is_syn and (not opener or bool(opener & sender and is_answered)))
        self.flows.pop(reverse(key), None)
        now = {half: 0, reached: end, "is_open": is_open, "opener": opener}
        self.flows[key] = replace(known, **now, **way)

    def _is_alike(self, key: Key, known: Halves, fresh: Halves, *, is_local: bool) -> bool:
        """Whether a record is of the same pods, translation and way as what is seen."""
        one, other = (
            (halves.epoch, halves.ifindex, halves.behind, is_local and halves.neighbour)
            for halves in (known, fresh)
        )
        return one == other and self._is_local(key) == is_local

    def _reset(self, key: Key, sequence: int, reached: str) -> None:
        """A RST of who has `reached` a sequence number has come out."""
        if known := self.flows.get(key):
            if None not in {known.out, known.into} and sequence == getattr(known, reached):
                self.resets.add(key)
            self.flows[key] = replace(known, out=None, into=None, is_open=False)

    def ended(self, frame: bytes) -> tuple[list[Key], bytes]:
        """The records that a SYN, in a tunnel or not, may end; and the same as an ACK."""
        for start, packet in _segments(frame):
            opens = packet.flags & (SYN | ACK) == SYN
            # No connection has a SYN with FIN.
            if opens or packet.flags & (SYN | FIN) == SYN | FIN:
                flags = start + ETHERNET + IP + 13
                twin = frame[:flags] + bytes([ACK]) + frame[flags + 1 :]
                return self._of(packet, opens=opens), twin
        return [], frame

    def is_shown(self, frame: bytes) -> bool:
        """Whether conntrack may be shown a copy of a frame, in a tunnel or not."""
        return any(
            is_fin(packet) or self.flows[key].closing
            for _, packet in _segments(frame)
            for key in self._of(packet)
        )

    def closed(self, frame: bytes) -> list[Key]:
        """The record that a FIN, in a tunnel or not, closes."""
        return [
            key
            for _, packet in _segments(frame)
            if packet.flags & (SYN | FIN) == FIN
            for key in self._of(packet)
        ]

    def finished(self, frame: bytes) -> list[Key]:
        """The record that may end with a packet, as the ACK of FINs."""
        return [
            key
            for _, packet in _segments(frame)
            if packet.size == packet.headers and not is_fin(packet)
            for key in self._of(packet)
            if self.flows[key].closing == ENDS
        ]

    def _of(self, packet: Packet, *, opens: bool = False) -> list[Key]:
        """The record of a packet. What the other end `opens` is no flow that is translated."""
        found = self._find(packet.key)
        if not found or (opens and found[1] and self.flows[found[0]].behind):
            return []
        return [found[0]]

    def _find(self, sent: Key) -> tuple[Key, bool] | None:
        """The record of what is sent so, and whether it comes in to the pod of the record.

        That is so of a flow that is so, or is so behind netfilter.
        """
        if sent in self.flows:
            return sent, False
        back = reverse(sent)
        if back in self.flows and not self.flows[back].behind:
            return back, True
        behind = (key for key, one in self.flows.items() if one.behind == back)
        return next(((key, True) for key in behind), None)

    def _is_local(self, key: Key) -> bool:
        """Whether the record is of a flow between two pods of this node."""
        return self._peer((self.flows[key].behind or key)[1]) is None

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


def _is_same(packet: Packet, note: Note, *, hops: int) -> bool:
    """Whether a packet is what went in, `hops` later; congestion may have been marked.

    It may be another flow's now, if it is TCP or UDP and of the same content.
    """
    went_in = note.protocol, note.ttl, note.epoch
    if went_in != (packet.protocol, (packet.ttl + hops) % 256, EPOCH):
        return False
    is_translated = key_of_note(note) != packet.key
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
