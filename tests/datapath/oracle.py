# SPDX-License-Identifier: Apache-2.0
"""Oracle: what the four programs must do with a frame, worked out again from the rules alone.

Written from the rules (bpf/README.md; RFC 791, 6040, 7348; how the kernel forwards), not from the
C: a packet either is flawless and every condition for a bypass holds, or nothing happens to it.
There are no verdicts here and no order of checks. Knows World and bytes, none of vxlane's code but
the enums. What the exits learn is in learning.py.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from forwarding import (
    Key,
    Packet,
    fits,
    hop,
    is_control,
    is_fin,
    merged,
    read,
    reverse,
    translated,
)
from frames import CE, ECT0, TCP, UDP, mac
from halves import Halves
from learning import Learner
from testrun import Context
from world import (
    BRIDGE,
    EPOCH,
    NIC,
    NIC_MAC,
    NODE_ADDRESS,
    OVERLAY_MAC,
    PORT,
    VNI,
)

from vxlane.datapath.abi import Guard, Program, Way
from vxlane.datapath.records import Peer, Pod


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


class Oracle(Learner):
    """Judges frames in one world, by what was learned in it."""

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
        found = self._find(packet.key)
        if not found:
            return None
        key, inbound = found
        record = self.flows[key]
        if inbound and not self._is_local(key):
            return None
        if (record.neighbour if inbound else record.ifindex) != sender.ifindex:
            return None
        if not self._approved(key, packet, inbound=inbound):
            return None
        if _closes(record, packet) and sender.bridge != BRIDGE:
            return None
        becomes = reverse(key) if inbound else record.behind or key
        moved = translated(frame, becomes) if record.behind else frame
        if peer := self._peer(becomes[1]):
            return self._to_peer(moved, packet, sender, peer, context)
        receiver = self.pods.get(becomes[1])
        way = record.back if inbound else record.there
        by_gateway = record.behind is not None and way.by_gateway
        if (
            receiver
            and receiver is not sender
            and receiver.bridge == sender.bridge
            and receiver.ifindex == (record.ifindex if inbound else record.neighbour)
            and frame[:6] == mac(sender.gateway_mac if by_gateway else receiver.mac)
            and not (record.behind and way.is_routed and packet.ttl <= 1)
            and self._unguarded(receiver, packet, Guard.TO_POD)
            and fits(packet, receiver.mtu, context.gso_size)
        ):
            if not record.behind:
                return Judgement(frame, 0)
            macs = mac(way.source_mac), mac(receiver.mac)
            return Judgement(hop(moved, *macs, packet.tos, int(way.is_routed)), 0)
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
        if tos is None:
            return None
        return self._into_pod(inner, packet, tos, context, shows=bool(self.world.vtep))

    def _from_link(self, frame: bytes, packet: Packet, context: Context) -> Judgement | None:
        peer = self._peer(packet.source)
        if peer and peer.way is Way.DIRECT:
            return self._into_pod(frame, packet, packet.tos, context, shows=False)
        return None

    def _into_pod(
        self, frame: bytes, packet: Packet, tos: int, context: Context, *, shows: bool
    ) -> Judgement | None:
        """`shows`: whether conntrack can be shown a copy of it."""
        found = self._find(packet.key)
        if not found or not found[1] or self._is_local(found[0]):
            return None
        key, _ = found
        record, pod = self.flows[key], self.pods.get(key[0])
        if (
            pod
            and pod.ifindex == record.ifindex
            and (shows or not _closes(record, packet))
            and packet.ttl > 1
            and self._unguarded(pod, packet, Guard.TO_POD)
            and self._approved(key, packet, inbound=True)
            and fits(packet, pod.mtu, context.gso_size)
        ):
            if record.behind:
                frame = translated(frame, reverse(key))
            return Judgement(hop(frame, mac(pod.gateway_mac), mac(pod.mac), tos), 0)
        return None

    def _approved(self, key: Key, packet: Packet, *, inbound: bool) -> bool:
        record = self.flows[key]
        if record.behind and self.world.judged_nat:
            return False
        if record.epoch != EPOCH:
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
        # Whether the pod that sends, or gets it from elsewhere, goes by another address.
        end = int(inbound and self._is_local(key))
        is_renamed = record.behind is not None and record.behind[end] != key[end]
        if packet.protocol == UDP and not is_renamed:
            return own < longest
        return other is not None and max(own, other) < longest

    def _unguarded(self, pod: Pod, packet: Packet, way: Guard) -> bool:
        if self.world.judged or pod.guard & Guard.JUDGED:
            return False
        # TCP goes both ways or not at all.
        return not (pod.guard if packet.protocol == TCP else pod.guard & way)


def _closes(record: Halves, packet: Packet) -> bool:
    """Whether a packet ends its connection, or follows what does: conntrack is shown a copy."""
    return record.closing != 0 or is_fin(packet)
