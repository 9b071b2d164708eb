# SPDX-License-Identifier: Apache-2.0
"""What this kernel's helpers really do, tried out: a version number says little of a patched one.

Each probe is a function from a `Place` to an `Answer`. `PROBES` is the list of them.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from vxlane.datapath import loose
from vxlane.datapath.attach import Method
from vxlane.probes import instructions as bpf
from vxlane.probes.place import MARKER, Place, arrived, arrived_as, run
from vxlane.probes.source_port import uses_last_port
from vxlane.probes.unclear import Unclear

_POD_MAC = bytes.fromhex("02766c616e01")
_NEIGHBOUR_MAC = bytes.fromhex("02766c616e02")
_NEXT_HOP = socket.inet_aton("10.255.255.2")
_FRAME = (
    _POD_MAC
    + bytes.fromhex("02766c616e65")
    + bytes.fromhex("0800 4500005c 00000000 4011668f 0affff01 0affff02 0001 0002 0048 0000")
    + bytes(64 - len(MARKER))
    + MARKER
)
"""A UDP datagram. A bridge with netfilter verifies the header's checksum, and cuts padding off."""
_VALUE = 0x1234
_PACKET_HOST = 0
_CLOCK_MONOTONIC_COARSE = 6
_BEHIND = 50_000_000
"""ns. The coarse clock steps with the kernel's ticks, 10 ms at most."""
_ENCAPSULATION = 50
_FIXED_GSO = 1 << 0
_ENCAP_FLAGS = _FIXED_GSO | 1 << 1 | 1 << 4 | 1 << 6 | 14 << 56
"""As bpf/vxlan.h has them: BPF_F_ADJ_ROOM_FIXED_GSO, _ENCAP_L3_IPV4, _ENCAP_L4_UDP, _ENCAP_L2_ETH
and _ENCAP_L2(14) of linux/bpf.h."""
_NO_CSUM_RESET, _DECAP_L4_UDP = 1 << 5, 1 << 10
_ROOM_AT_MAC = 1
_TUNNEL_KEY = 28
"""Bytes of struct bpf_tunnel_key that every kernel with IPv6 remotes takes."""


class Answer(enum.Enum):
    """Whether the kernel does it."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe found."""

    name: str
    answer: Answer
    reason: str
    """Why not, or why it is not known; empty after a yes."""
    meaning: str
    is_needed: bool
    """Without it there is no bypass."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to the kernel."""

    name: str
    ask: Callable[[Place], bool]
    meaning: str
    """What follows from a yes."""


def redirect_peer(place: Place) -> bool:
    """bpf_redirect_peer() puts a packet into the pod."""
    with place.tap("pod") as tap, place.attached(*_to_pod(place)):
        place.send(_FRAME)
        return arrived(tap) is not None


def peer_counters(place: Place) -> bool:
    """A packet that bpf_redirect_peer() puts into the pod is counted at the pod's interface."""
    with place.tap("pod") as tap, place.attached(*_to_pod(place)):
        before = place.received_by_pod()
        place.send(_FRAME)
        return arrived(tap) is not None and place.received_by_pod() > before


def peer_scrubs(place: Place) -> bool:
    """bpf_redirect_peer() takes what belongs to the node off the packet: here a tunnel's key.

    The key is set before. In the pod its first word (0 where there is none) is written over the
    frame's first bytes, and the frame is sent back.
    """
    words = _TUNNEL_KEY // 4
    key = bpf.copy(bpf.R2, bpf.STACK), bpf.add(bpf.R2, -_TUNNEL_KEY)
    arguments = (*key, bpf.number(bpf.R3, _TUNNEL_KEY), bpf.number(bpf.R4, 0))
    setting = (
        *bpf.fill_stack((_VALUE, 0x0A000001, *[0] * (words - 2))),
        *(*arguments, bpf.call(bpf.SET_TUNNEL_KEY), *_to_pod(place)),
    )
    looking = (
        *(bpf.copy(bpf.CONTEXT, bpf.R1), *bpf.fill_stack((0,) * words), *arguments),
        *(bpf.call(bpf.GET_TUNNEL_KEY), bpf.copy(bpf.R1, bpf.CONTEXT), bpf.number(bpf.R2, 0)),
        *(bpf.copy(bpf.R3, bpf.STACK), bpf.add(bpf.R3, -_TUNNEL_KEY), bpf.number(bpf.R4, 4)),
        *(bpf.number(bpf.R5, 0), bpf.call(bpf.STORE_BYTES)),
        *(bpf.number(bpf.R1, place.pod), bpf.number(bpf.R2, 0), bpf.call(bpf.REDIRECT_TO)),
        bpf.end(),
    )
    with (
        place.tap("port") as tap,
        place.attached(*setting),
        place.attached(*looking, device="pod"),
    ):
        place.send(_FRAME)
        frame = arrived(tap)
    return frame is not None and frame.startswith(bytes(4))


def peer_takes_as_host(place: Place) -> bool:
    """bpf_redirect_peer() makes a pod's own of a frame that was for another MAC than `wire`'s."""
    with place.tap("pod") as tap, place.attached(*_to_pod(place)):
        place.send(_FRAME)
        frame, kind = arrived_as(tap)
    return frame is not None and kind == _PACKET_HOST


def redirect_neigh(place: Place) -> bool:
    """bpf_redirect_neigh() sends to a next hop that is given, under the MAC of its neighbour."""
    place.set_neighbour(_NEXT_HOP, _NEIGHBOUR_MAC)
    hop = (socket.AF_INET, struct.unpack("=I", _NEXT_HOP)[0], 0, 0, 0)
    size = 4 * len(hop)
    program = (
        *(*bpf.fill_stack(hop), bpf.number(bpf.R1, place.port), bpf.copy(bpf.R2, bpf.STACK)),
        *(bpf.add(bpf.R2, -size), bpf.number(bpf.R3, size), bpf.number(bpf.R4, 0)),
        *(bpf.call(bpf.REDIRECT_NEIGH), bpf.end()),
    )
    with place.tap("pod") as tap, place.attached(*program):
        place.send(_FRAME)
        frame = arrived(tap)
    return frame is not None and frame.startswith(_NEIGHBOUR_MAC)


def stamp_survives(place: Place) -> bool:
    """What an entrance writes into tc_index is still on the packet behind a bridge."""
    stamp = bpf.number(bpf.R2, _VALUE), bpf.store(bpf.R1, bpf.TC_INDEX, bpf.R2)
    look = (
        *(bpf.load(bpf.R2, bpf.R1, bpf.TC_INDEX), bpf.unless(bpf.R2, _VALUE, 2)),
        *(*bpf.answer(bpf.PASS), *bpf.answer(bpf.DROP)),
    )
    with (
        place.bridge(),
        place.tap("pod") as tap,
        place.attached(*stamp, *bpf.answer(bpf.PASS)),
        place.attached(*look, device="port"),
    ):
        place.send(_FRAME)
        return arrived(tap) is not None


def encapsulates(_: Place) -> bool:
    """bpf_skb_adjust_room() makes room for VXLAN's headers and keeps the inner Ethernet header."""
    return _length_after(_ENCAPSULATION, _ENCAP_FLAGS) == len(_FRAME) + _ENCAPSULATION


def decapsulates(_: Place) -> bool:
    """bpf_skb_adjust_room() takes VXLAN's headers off."""
    return _length_after(-_ENCAPSULATION, _FIXED_GSO) == len(_FRAME) - _ENCAPSULATION


def decapsulates_udp(_: Place) -> bool:
    """bpf_skb_adjust_room() makes an skb no tunnel's any more (BPF_F_ADJ_ROOM_DECAP_L4_UDP)."""
    flags = _FIXED_GSO | _NO_CSUM_RESET | _DECAP_L4_UDP
    return _length_after(-_ENCAPSULATION, flags) == len(_FRAME) - _ENCAPSULATION


def coarse_clock(_: Place) -> bool:
    """bpf_ktime_get_coarse_ns() tells the kernel's coarse clock."""
    program = loose.prog_load(bpf.call(bpf.COARSE_CLOCK) + bpf.end())
    try:
        low = loose.prog_test_run(program, _FRAME)[0]
    finally:
        os.close(program)
    # A program's answer has 32 bits.
    age = (time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE) - low) % 2**32
    return age < _BEHIND


def by_tcx(place: Place) -> bool:
    """Programs can be attached without a qdisc, by links (Linux 6.6)."""
    return _meets_frames(place, Method.TCX)


def by_clsact(place: Place) -> bool:
    """Programs can be attached as filters of a clsact qdisc."""
    return _meets_frames(place, Method.CLSACT)


def _meets_frames(place: Place, method: Method) -> bool:
    with place.tap("pod") as tap, place.attached(*_to_pod(place), method=method):
        place.send(_FRAME)
        return arrived(tap) is not None


def _to_pod(place: Place) -> tuple[bytes, ...]:
    arguments = bpf.number(bpf.R1, place.port), bpf.number(bpf.R2, 0)
    return (*arguments, bpf.call(bpf.REDIRECT_PEER), bpf.end())


def _length_after(more: int, flags: int) -> int:
    """The length of the frame after its room was changed; -1: the helper refuses."""
    program = loose.prog_load(
        b"".join(
            (
                *(bpf.number(bpf.R2, more), bpf.number(bpf.R3, _ROOM_AT_MAC)),
                *(bpf.large(bpf.R4, flags), bpf.call(bpf.ADJUST_ROOM), bpf.end()),
            )
        )
    )
    try:
        refused, frame, _ = loose.prog_test_run(program, _FRAME)
    finally:
        os.close(program)
    return -1 if refused else len(frame)


_NEEDED = (
    Probe("redirect_peer", redirect_peer, "a packet goes into the pod without a queue"),
    Probe("redirect_neigh", redirect_neigh, "the kernel writes the outer Ethernet header"),
    Probe("encapsulate", encapsulates, "a packet is given the tunnel's headers"),
    Probe("decapsulate", decapsulates, "a packet loses the tunnel's headers"),
    Probe("stamp", stamp_survives, "the exit knows a packet again that the entrance noted"),
    Probe("coarse_clock", coarse_clock, "a record's age is read without asking the clock's device"),
)
"""Without one of these there is no bypass."""
PROBES = (
    *_NEEDED,
    Probe("tcx", by_tcx, "programs are attached without a qdisc, beside other programs"),
    Probe("clsact", by_clsact, "programs can be attached behind another program's filters"),
    Probe("peer_counters", peer_counters, "the pod's interface counts bypassed packets"),
    Probe(
        "peer_takes_as_host",
        peer_takes_as_host,
        "a frame through the bridge needs no other type (built into the programs)",
    ),
    Probe(
        "decap_l4_udp",
        decapsulates_udp,
        "UDP super-packets are bypassed on their way in (built into the programs)",
    ),
    Probe(
        "last_port",
        uses_last_port,
        "flannel.1 uses the last source port of its range too; the bypass repeats what it saw",
    ),
    Probe("peer_scrubs", peer_scrubs, "nothing of the node is on a packet when the pod has it"),
)


def results() -> tuple[Result, ...]:
    """What each probe finds on this kernel, in about half a second."""
    try:
        return run(lambda place: tuple(_result(probe, place) for probe in PROBES))
    except OSError as error:
        why = f"no place to try it in: {error.strerror}"
        return tuple(as_result(probe, Answer.UNKNOWN, why) for probe in PROBES)


def _result(probe: Probe, place: Place) -> Result:
    try:
        if probe.ask(place):
            return as_result(probe, Answer.YES, "")
        return as_result(probe, Answer.NO, "it was tried, and did not do so")
    except Unclear as unclear:
        return as_result(probe, Answer.UNKNOWN, str(unclear))
    except OSError as error:
        answer = Answer.UNKNOWN if error.errno == errno.EPERM else Answer.NO
        return as_result(probe, answer, f"the kernel refuses it: {error.strerror}")


def as_result(probe: Probe, answer: Answer, reason: str) -> Result:
    """An answer with what the probe says of itself."""
    return Result(probe.name, answer, reason, probe.meaning, probe in _NEEDED)
