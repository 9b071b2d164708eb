# SPDX-License-Identifier: Apache-2.0
"""A flow map that can take no more costs a bypass, never a packet."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench
from frames import RST
from tables import from_pod, leaving
from tables.case import ACK_DATA, DATAGRAM, noted, only
from testrun import Action, Context
from world import NIC, TCP_FLOW, UDP_FLOW, VETH, Approval
from worldmaps import put_note, stand

from vxlane.datapath import syscall
from vxlane.datapath.abi import HEADER, Program, Verdict
from vxlane.datapath.bpffs import ensure_bpffs
from vxlane.datapath.programs import Constants, pin_directory
from vxlane.datapath.records import Count

MAP_CREATE, HASH = 0, 1
STAMP = 4711


def pin_hash_of_one(state: Path) -> None:
    """Pin a plain hash of one entry as `flows`: a full LRU makes room, so no test can fill it."""
    ensure_bpffs(state / "bpf")
    pin_directory(state).mkdir()
    sizes = [ctypes.sizeof(HEADER.structs[name]) for name in ("flow_key", "flow")]
    made, _ = syscall._bpf(MAP_CREATE, struct.pack("=IIIII", HASH, *sizes, 1, 0))
    syscall.obj_pin(made, pin_directory(state) / "flows")
    os.close(made)


@pytest.mark.usefixtures("node")
def test_map_full(tmp_path: Path) -> None:
    """What can't be recorded is counted as map_full and goes on by the kernel path, whole."""
    pin_hash_of_one(tmp_path)
    bench = Bench(tmp_path, Constants(max_flows=1))
    standing = stand(bench.maps, only(Approval(tuple=replace(UDP_FLOW, local_port=1))))
    frame = bytes(leaving.left(leaving.leaving(DATAGRAM)))
    put_note(bench.maps, leaving.FAITHFUL, STAMP)
    with bench.counting() as moved:
        result = bench.runners[Program.TO_NIC].run(frame, Context(ifindex=NIC, stamp=STAMP))
    assert moved.verdicts == {(Program.TO_NIC, Verdict.MAP_FULL): Count(1, len(frame))}
    assert (result.action, result.frame) == (Action.UNSPEC, frame)
    assert standing.flows() == {Approval(tuple=replace(UDP_FLOW, local_port=1))}


@pytest.mark.usefixtures("node")
def test_resets_full(tmp_path: Path) -> None:
    """A RST that the agent can't be told of is counted so, passes, and ends the bypass."""
    bench = Bench(tmp_path, Constants(max_flows=1))
    flow, other = Approval(tuple=TCP_FLOW), replace(TCP_FLOW, local_port=1)
    standing = stand(bench.maps, replace(only(flow), resets=frozenset([other])))
    inner = leaving.leaving(replace(ACK_DATA, flags=RST))
    frame = bytes(leaving.left(inner))
    put_note(bench.maps, noted(inner, 1), STAMP)
    with bench.counting() as moved:
        result = bench.runners[Program.TO_NIC].run(frame, Context(ifindex=NIC, stamp=STAMP))
    assert moved.verdicts == {(Program.TO_NIC, Verdict.MAP_FULL): Count(1, len(frame))}
    assert (result.action, result.frame) == (Action.UNSPEC, frame)
    assert standing.flows() == frozenset()
    assert standing.resets() == {other}


@pytest.mark.usefixtures("node")
def test_more_flows_than_room(tmp_path: Path) -> None:
    """With ten times more flows than records all are learned, and the forgotten are unknown."""
    bench = Bench(tmp_path, Constants(max_flows=100))
    stand(bench.maps, only())
    frames = [replace(DATAGRAM, source=port) for port in range(1000)]
    with bench.counting() as moved:
        for frame in frames:
            inner = leaving.leaving(frame)
            put_note(bench.maps, noted(inner, 1), STAMP)
            bench.runners[Program.TO_NIC].run(
                bytes(leaving.left(inner)), Context(ifindex=NIC, stamp=STAMP)
            )
        for frame in frames:
            bench.runners[Program.FROM_POD].run(bytes(from_pod.sent(frame)), Context(ifindex=VETH))
    counts = {key: count.packets for key, count in moved.verdicts.items()}
    learned = counts.pop((Program.TO_NIC, Verdict.LEARNED))
    bypassed = counts.pop((Program.FROM_POD, Verdict.ENCAPSULATED))
    unknown = counts.pop((Program.FROM_POD, Verdict.FLOW_UNKNOWN))
    assert not counts
    assert learned == 1000
    assert 0 < bypassed <= 100
    assert unknown == 1000 - bypassed
