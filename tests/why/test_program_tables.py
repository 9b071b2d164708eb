# SPDX-License-Identifier: Apache-2.0
"""The rows of the programs' own tables: for a usual packet the verdict foretold is the row's.

`tests/datapath/test_tables.py` runs each row through the real programs. Here its maps are put into
memory, the facts are read from them, and the same verdict has to come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

import memorymaps
import pytest
import world
import worldmaps
from frames import ACK, ENCAPSULATION, ETHERNET, FIN, ICMP, IP, RST, SYN, TCP, UDP, Frame
from test_tables import CASES

from vxlane.datapath.abi import Program, Verdict, Way
from vxlane.datapath.records import Tuple
from vxlane.host.connections import Connection
from vxlane.why import decide
from vxlane.why.reader import Reader, tuple_of
from vxlane.why.reasons import REASONS

ENTRANCES = {Program.FROM_POD, Program.FROM_NIC}
PLAIN = b"\x08\x00\x45"
"""Ethertype of IPv4, and the first byte of a header without options."""


@dataclass(frozen=True)
class Usual:
    """The packet of a row, as far as a flow knows it."""

    sent: Tuple
    state: str
    """What conntrack has of a TCP connection in which that is the next packet."""
    is_tunnelled: bool


def usual(case):
    """None: what becomes of the packet is its own matter, and can't be known before it comes."""
    if not isinstance(case.frame, Frame) or case.mark or case.gso_size:
        return None
    frame = bytes(case.frame)
    is_tunnelled = frame[23] == UDP and frame[36:38] == world.PORT.to_bytes(2, "big")
    if case.program is Program.FROM_NIC and is_tunnelled:
        frame = frame[ENCAPSULATION:]
    packet = frame[ETHERNET:]
    if frame[12:15] != PLAIN or (packet[9] == ICMP and packet[20] not in {0, 8}):
        return None
    ports = int.from_bytes(packet[20:22], "big"), int.from_bytes(packet[22:24], "big")
    if packet[9] == ICMP:
        ports = int.from_bytes(packet[24:26], "big"), packet[20]
        if packet[21]:
            return None
    state = ""
    if packet[9] == TCP:
        flags = packet[33] & (FIN | SYN | RST | ACK)
        # An ACK alone may be the one behind both FINs, which its numbers say.
        is_bare = len(packet) == IP + (packet[32] >> 4) * 4
        if flags not in {SYN, ACK} or (flags == ACK and is_bare):
            return None
        state = "syn_sent" if flags == SYN else "established"
    ends = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    if packet[9] not in {TCP, UDP, ICMP}:
        ports = 0, 0
    return Usual(Tuple(*ends, *ports, packet[9]), state, is_tunnelled)


def is_foreseen(case):
    """Whether the row's verdict is one that is given for a flow, and its packet is usual."""
    if case.program not in ENTRANCES or case.verdict not in REASONS:
        return False
    # Of the frame alone: whose MAC it has, and that it is not the overlay's.
    if case.verdict in {Verdict.SPOOFED_MAC, Verdict.NOT_OVERLAY}:
        return False
    packet = usual(case)
    if packet is None or not has_its_way(case, packet):
        return False
    # Whether the bridge takes a copy of what a pod sends, the kernel says.
    is_control = case.program is Program.FROM_POD and case.verdict is Verdict.TCP_CONTROL
    return not is_control or packet.state == "syn_sent"


def has_its_way(case, packet):
    """Whether what a peer sends comes as the peer's packets do: in a tunnel, or without one."""
    if case.program is Program.FROM_POD:
        return True
    peer = world.peer_of(packet.sent.local, case.world.peers)
    return peer is None or (peer.way is Way.TUNNEL) == packet.is_tunnelled


ROWS = [case for case in CASES if is_foreseen(case)]


class Kernel:
    """Says of every flow that its connection is in one state, and nothing else."""

    def __init__(self, state):
        self._state = state

    def connection(self, sent):
        """One that nothing translates."""
        if not self._state:
            return None
        return Connection(
            sent,
            sent.reversed,
            self._state,
            is_answered=True,
            is_assured=True,
            timeout=1,
            traffic=None,
        )

    def mac(self, _veth):
        """Not known."""

    def holder(self, _address):
        """No device of the node."""
        return ""

    def qdisc(self, _veth):
        """None that shapes."""
        return "noqueue"

    def strayed(self, _peer, _source):
        """Not at all."""
        return ""


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_row(case, monkeypatch):
    """What is foretold from the row's maps is what the program says of the row's packet."""
    maps, bpf = memorymaps.in_memory(monkeypatch)
    bpf.capacity = dict.fromkeys(bpf.capacity, 1 << 20)
    for name in ("syscall", "batches"):
        monkeypatch.setattr(worldmaps, name, bpf)
    worldmaps.stand(maps, case.world)
    packet = usual(case)
    reader = Reader(maps, Kernel(packet.state))
    if case.program is Program.FROM_POD:
        assert decide.leaving(reader.facts(packet.sent)).label == case.verdict.label
        return
    behind = tuple_of(packet.sent.reversed)
    record = maps.flow_behind(behind)
    facts = reader.facts(record.tuple if record else behind)
    assert decide.arriving(facts).label == case.verdict.label


def test_rows_are_many():
    """The tables have rows for nearly every verdict that is foretold."""
    assert len(ROWS) > 150
    missing = set(REASONS) - {case.verdict for case in ROWS}
    # Of the frame, or of what no program can see.
    assert {verdict.label for verdict in missing} <= {
        *("spoofed_mac", "not_overlay", "changed", "no_next_hop"),
    }
