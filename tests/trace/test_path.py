# SPDX-License-Identifier: Apache-2.0
"""How long packets took between two nodes: what is paired, and what clocks do to it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner
from frames import Frame, Tcp, Udp
from labundertest import LabUnderTest
from listening import CLIENT, SERVER, ping, tshark
from world import BRIDGE_MAC, POD, REMOTE

from vxlane.cli.path import path
from vxlane.datapath.abi import Program, Verdict
from vxlane.errors import ConfigError
from vxlane.lab.agents import program
from vxlane.runtime.netns import inside
from vxlane.trace import pcapng
from vxlane.trace.path import Offset, Trip, corrected, histogram, key_of, offset_of, trips
from vxlane.trace.pcapng_reader import Captured, read

SENT, ARRIVED = Program.FROM_POD, Program.FROM_NIC


def frame(number: int = 1, *, back: bool = False, ttl: int = 64, **more) -> bytes:
    """A segment of a connection, the `number` of which it is, from POD to REMOTE or back."""
    ends = (REMOTE, POD.address) if back else (POD.address, REMOTE)
    made = {
        "source": ends[0],
        "destination": ends[1],
        "transport": Tcp(source=4000, dest=80),
        "identification": number,
        "ttl": ttl,
    }
    return bytes(Frame(source_mac=POD.mac, dest_mac=BRIDGE_MAC, **(made | more)))


def seen(
    hook: Program, time: int, data: bytes, verdict: str = "encapsulated", *, is_super: bool = False
) -> Captured:
    """A packet of a file."""
    return Captured(
        hook, time, data, Verdict[verdict.upper()], is_super, length=len(data), comment=verdict
    )


def test_bypassed() -> None:
    """A packet is found again one hop older; the bypass has its time on the wire alone."""
    a = [seen(SENT, 100, frame())]
    b = [seen(ARRIVED, 150, frame(ttl=63), "decapsulated")]
    expected = Trip(
        key=key_of(a[0]),
        is_forward=True,
        began=100,
        sender=None,
        wire=50,
        receiver=None,
        bypasses=2,
    )
    assert trips(a, b) == [expected]


def test_by_the_kernel_path() -> None:
    """Where the exits saw it too, the times between entrance and exit are the nodes' own."""
    a = [seen(SENT, 100, frame(), "flow_unknown"), seen(Program.TO_NIC, 130, frame(), "learned")]
    b = [seen(ARRIVED, 190, frame(), "flow_half"), seen(Program.TO_POD, 290, frame(), "learned")]
    (trip,) = trips(a, b)
    assert (trip.sender, trip.wire, trip.receiver, trip.bypasses) == (30, 60, 100, 0)


def test_dropped_at_its_end() -> None:
    """What the receiver's kernel path kept from its pod was not bypassed there."""
    a = [seen(SENT, 100, frame())]
    (trip,) = trips(a, [seen(ARRIVED, 190, frame(), "flow_half")])
    assert (trip.receiver, trip.bypasses) == (None, 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], [seen(ARRIVED, 150, frame())]),
        ([seen(SENT, 100, frame(1))], [seen(ARRIVED, 150, frame(2))]),
        ([seen(SENT, 100, frame())] * 2, [seen(ARRIVED, 150, frame())]),
        ([seen(SENT, 100, frame(), is_super=True)], [seen(ARRIVED, 150, frame())]),
        ([seen(SENT, 100, frame(), "flow_unknown")], [seen(ARRIVED, 150, frame())]),
        ([seen(SENT, 100, b"x" * 60)], [seen(ARRIVED, 150, b"x" * 60)]),
        (
            [seen(SENT, 100, frame(transport=Udp(source=1, dest=2)))],
            [seen(ARRIVED, 150, frame(transport=Udp(source=1, dest=3)))],
        ),
    ],
)
def test_no_pair(a: list[Captured], b: list[Captured]) -> None:
    """Another packet, one that is not unique, a super-packet, one that was not seen to leave and
    one that is not IP make no pair.
    """
    assert trips(a, b) == []


def test_offset() -> None:
    """A clock that is 1000 ahead is found to within half of the two least times."""
    a = [seen(SENT, 100, frame(1)), seen(ARRIVED, 540, frame(2, back=True))]
    b = [seen(ARRIVED, 1150, frame(1)), seen(SENT, 1510, frame(2, back=True))]
    found = trips(a, b)
    offset = offset_of(found)
    assert offset == Offset(1010, 40)
    assert abs(offset.value - 1000) <= offset.error
    assert [corrected(trip, offset) for trip in found] == [40, 40]
    assert offset_of(found[:1]) is None


def test_histogram() -> None:
    """Buckets are powers of two, without a gap."""
    assert histogram([1, 5, 6, 40]) == [(1, 1), (2, 0), (4, 2), (8, 0), (16, 0), (32, 1)]
    assert histogram([]) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 16,
        b"\x06\0\0\0\x10\0\0\0" + bytes(8),
        b"short",
        b"\xd4\xc3\xb2\xa1\x02\0\x04\0" + bytes(16),
    ],
    ids=["empty", "zeros", "no_section", "short", "pcap"],
)
def test_not_a_capture(tmp_path: Path, content: bytes) -> None:
    """Another file is refused by its name."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x is not a whole file of 'vxlane capture'"):
        read(tmp_path / "x")
    with pytest.raises(ConfigError, match=r"read .*: No such file"):
        read(tmp_path / "none")


def test_two_nodes(lab: LabUnderTest, tmp_path: Path) -> None:
    """Of echoes between two nodes that share a clock, the offset is found to within its error, and
    those by the kernel path have all three times. The files merged hold each echo's way in order:
    from the pod of one node to the pod of the other.
    """
    files = [str(tmp_path / f"{node}.pcapng") for node in ("node1", "node2")]
    with ExitStack() as stack:
        captures = []
        for node, file in zip(("node1", "node2"), files, strict=True):
            env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(node).directory)}
            argv = [program("vxlane"), "capture", "-w", file, "--proto", "icmp"]
            child = stack.enter_context(lab.spawn(node, *argv, env=env, stderr=subprocess.PIPE))
            captures.append(child)
        for child in captures:
            assert child.stderr
            child.stderr.readline()
        ping(lab, CLIENT, SERVER, 10, 301)
        for child in captures:
            child.send_signal(signal.SIGINT)
            assert child.wait() == 0
    told = lab.vxlane("node1", "path", *files)
    # Each process reads the one clock by itself, to a microsecond or so.
    assert abs(told["offset"]) <= told["offset_error"] + 10
    assert len(told["packets"]) == 20
    assert {packet["direction"] for packet in told["packets"]} == {"a to b", "b to a"}
    kernel = [packet for packet in told["packets"] if packet["path"] == "kernel"]
    assert kernel
    assert all(packet["sender"] > 0 and packet["receiver"] > 0 for packet in kernel)
    assert sum(bucket["packets"] for bucket in told["histogram"]) == 20
    shown = lab.exec("node1", program("vxlane"), "path", *files).stdout
    assert shown.startswith("B's clock less A's: ")
    assert "a to b     kernel" in shown
    check_merged(lab, files, tmp_path / "merged.pcapng")


DOCUMENTED = re.compile(
    r"^    ((?:ssh node2 )?vxlane (?:capture|path) .*node\d.pcapng.*)$", re.MULTILINE
)
"""The commands of docs/operate.md."""


def test_as_documented(lab: LabUnderTest, tmp_path: Path) -> None:
    """The documented commands bring one flow from both nodes into one file, paired by packet, and
    `vxlane path` tells each part of its way. ssh is a script here that goes to the other node.
    """
    text = (Path(__file__).parents[2] / "docs" / "operate.md").read_text(encoding="utf-8")
    commands = DOCUMENTED.findall(text)
    assert [command.split()[:3] for command in commands] == [
        ["ssh", "node2", "vxlane"],
        ["vxlane", "capture", "-w"],
        ["vxlane", "path", "node1.pcapng"],
        ["vxlane", "capture", "merge"],
    ]
    script = "\n".join(["set -e", *commands]).replace("--count 1000", "--count 30")
    script = script.replace("10.42.2.7", lab.address(SERVER))
    ssh, there = tmp_path / "ssh", f"VXLANE_STATE_DIR={lab.node('node2').directory}"
    enter = shlex.join(inside(lab.netns("node2"), ["env", there]))
    ssh.write_text(f'#!/bin/sh\nshift\nexec {enter} "$@"\n')
    ssh.chmod(0o755)
    path = f"{tmp_path}:{Path(program('vxlane')).parent}:{os.environ['PATH']}"
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node("node1").directory), "PATH": path}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    shell = ["bash", "-c", f"cd {tmp_path}\n{script}"]
    with lab.spawn("node1", *shell, env=env, **pipes) as child:
        assert child.stderr
        assert [child.stderr.readline() for _ in range(2)] == ["listening; Ctrl-C ends it\n"] * 2
        ping(lab, CLIENT, SERVER, 40, 302)
        shown, said = child.communicate(timeout=30)
    assert child.returncode == 0, said
    assert shown.startswith("B's clock less A's: ")
    assert "a to b     bypass" in shown
    assert re.search(r"60 packets, \d+ pairs; .*'s clock less .*: ", said)
    rows = tshark(tmp_path / "both.pcapng", "frame.comment", "frame.interface_description")
    seen = {(comment.rpartition(",")[2], node.partition(":")[0]) for comment, node in rows}
    assert {("pair 1", lab.node(node).name) for node in ("node1", "node2")} <= seen


def check_merged(lab: LabUnderTest, files: list[str], merged: Path) -> None:
    """In the files merged each echo goes from its pod over both NICs to the other pod."""
    one, two = (lab.node(node).name for node in ("node1", "node2"))
    argv = [program("vxlane"), "capture", "merge", *files, "-w", str(merged)]
    assert f" 20 pairs; {two}'s clock less {one}'s: " in lab.exec("node1", *argv).stderr
    ways: dict[str, list[tuple[str, str]]] = {}
    fields = ("frame.comment", "frame.interface_description", "frame.interface_name")
    for comment, description, program_name in tshark(merged, *fields):
        pair = comment.rpartition(",")[2]
        if pair.startswith("pair "):
            ways.setdefault(pair, []).append((description.partition(":")[0], program_name))
    assert len(ways) == 20
    for way in ways.values():
        sender, receiver = (one, two) if way[0][0] == one else (two, one)
        entrances = [(sender, "from_pod"), (receiver, "from_nic")]
        exits = [(sender, "to_nic"), (receiver, "to_pod")]
        whole = [entrances[0], exits[0], entrances[1], exits[1]]
        assert way == [step for step in whole if step in entrances or step in way]


def test_files_without_a_pair(tmp_path: Path) -> None:
    """What a capture needs for pairs is said, and that much of a packet is enough for one."""
    file = tmp_path / "x.pcapng"
    file.write_bytes(pcapng.head("node1", {}, 50))
    done = CliRunner().invoke(path, [str(file), str(file)])
    assert "with a --snaplen of 50 or more" in str(done.exception)
    assert key_of(seen(SENT, 1, frame()[:50]))
    assert not key_of(seen(SENT, 1, frame()[:49]))
