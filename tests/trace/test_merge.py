# SPDX-License-Identifier: Apache-2.0
"""Two nodes' captures in one file: what other programs read of it, and what it refuses."""

from __future__ import annotations

import struct
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from listening import tshark
from test_path import frame
from test_pcapng import blocks
from world import POD, REMOTE

from vxlane.cli.capture import capture
from vxlane.datapath.abi import Program
from vxlane.lab.agents import program
from vxlane.trace import pcapng

BEGIN = 1_764_000_000 * 10**9
"""Of every capture here, ns."""
AHEAD = 5_000_000
"""Ns by which B's clock differs from A's."""

SENT, ARRIVED = "encapsulated: bypassed: pod -> NIC", "decapsulated: bypassed: NIC -> pod"
KERNEL = "flow_unknown: approved by nothing yet"
THERE, BACK, LONELY = frame(1), frame(2, back=True), frame(3)

Seen = tuple[Program, int, bytes, str]

A: list[Seen] = [
    (Program.FROM_NIC, 5040, BACK, ARRIVED),
    (Program.FROM_POD, 1000, THERE, SENT),
    (Program.FROM_POD, 9000, LONELY, KERNEL),
]
B: list[Seen] = [
    (Program.FROM_NIC, 1040 + AHEAD, THERE, ARRIVED),
    (Program.FROM_POD, 5000 + AHEAD, BACK, SENT),
]


POD_OF = {"node1": POD.address, "node2": REMOTE}


def write(path: Path, node: str, packets: list[Seen]) -> Path:
    """A capture of `node`, which lost 7 packets."""
    seen = (
        pcapng.packet_block(hook, BEGIN + time, data[:50], length=len(data), comments=[comment])
        for hook, time, data, comment in packets
    )
    names = {IPv4Address(POD_OF[node]): f"{node}/pod"} if node else {}
    head = pcapng.head(node, names, 50)
    path.write_bytes(b"".join([head, *seen, pcapng.tail(7, BEGIN + AHEAD)]))
    return path


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """The files of node1 and node2, which have two pairs."""
    return write(tmp_path / "a", "node1", A), write(tmp_path / "b", "node2", B)


def merge(*words: Path | str) -> Result:
    """Run the command."""
    return CliRunner().invoke(capture, ["merge", *map(str, words)])


def places(path: Path, wanted: int) -> list[tuple[int, int]]:
    """Interface and time (ns since BEGIN) of each block of a kind."""
    begins = [
        struct.unpack_from("=III", body)
        for kind, body in blocks(path.read_bytes())
        if kind == wanted
    ]
    return [(interface, (high << 32 | low) - BEGIN) for interface, high, low in begins]


@pytest.mark.usefixtures("_machine")  # tshark is a package of the distribution
def test_read_by_others(both: tuple[Path, Path], tmp_path: Path) -> None:
    """Tshark reads the packets of both nodes in order, by one clock and each by its node's
    interface, with comments, a pair's number and the pods' names of both nodes. Capinfos reads the
    clocks' offset in the file's comment.
    """
    file = tmp_path / "c"
    done = merge(*both, "-w", file)
    clocks = "node2's clock less node1's: 5000.0 us, give or take 0.0; times are by node1's clock"
    assert done.stderr == f"5 packets, 2 pairs; {clocks}\n"
    fields = ["frame.time_epoch", "frame.interface_name", "frame.interface_description"]
    rows = tshark(file, *fields, "frame.comment", "ip.src_host", "ip.dst_host")
    out, into = "from_pod", "from_nic"
    sends, gets = "what pods send", "what the NIC receives"
    there, back = ("node1/pod", "node2/pod"), ("node2/pod", "node1/pod")
    assert rows == [
        ("1764000000.000001000", out, f"node1: {sends}", f"{SENT},pair 1", *there),
        ("1764000000.000001040", into, f"node2: {gets}", f"{ARRIVED},pair 1", *there),
        ("1764000000.000005000", out, f"node2: {sends}", f"{SENT},pair 2", *back),
        ("1764000000.000005040", into, f"node1: {gets}", f"{ARRIVED},pair 2", *back),
        ("1764000000.000009000", out, f"node1: {sends}", KERNEL, *there),
    ]
    assert set(tshark(file, "frame.cap_len", "frame.len")) == {("50", str(len(THERE)))}
    told = subprocess.run(["capinfos", "-k", file], check=True, capture_output=True, text=True)
    assert clocks in told.stdout


def test_one_direction(tmp_path: Path) -> None:
    """Packets of one direction have pairs but tell nothing of the clocks: no time is shifted."""
    a, b = write(tmp_path / "a", "node1", A[1:]), write(tmp_path / "b", "node2", B[:1])
    said = merge(a, b, "-w", tmp_path / "c").stderr
    assert said.startswith("3 packets, 1 pairs; packets of one direction only were seen by both")
    assert places(tmp_path / "c", 6) == [(0, 1000), (0, 9000), (6, 1040 + AHEAD)]


def test_nothing_in_common(tmp_path: Path) -> None:
    """Files without a packet in common are merged as they are; a node without a name is A or B."""
    a, b = write(tmp_path / "a", "", A), write(tmp_path / "b", "node2", [])
    assert merge(a, b, "-w", tmp_path / "c").stderr == (
        "3 packets, 0 pairs; no packet was seen by both A and node2, so no time is shifted: each"
        " is by its node's clock\n"
    )
    assert places(tmp_path / "c", 6) == [(0, 1000), (2, 5040), (0, 9000)]


def test_lost(both: tuple[Path, Path], tmp_path: Path) -> None:
    """What each node lost stands at the end, at its own interface and by A's clock."""
    merge(*both, "-w", tmp_path / "c")
    assert places(tmp_path / "c", 5) == [(0, AHEAD), (len(Program), 0)]
    ends = [body for kind, body in blocks((tmp_path / "c").read_bytes()) if kind == 5]
    assert all(struct.pack("=HHQ", 5, 8, 7) in body for body in ends)


def test_standard_output(both: tuple[Path, Path], tmp_path: Path) -> None:
    """With -w - the same bytes go to standard output, and words to standard error alone."""
    merge(*both, "-w", tmp_path / "c")
    argv = [program("vxlane"), "capture", "merge", *both, "-w", "-"]
    done = subprocess.run(argv, check=True, capture_output=True)
    assert done.stdout == (tmp_path / "c").read_bytes()


def test_refusals(both: tuple[Path, Path], tmp_path: Path) -> None:
    """A file that is merged can't be the output; one of two nodes and one that was cut off can't be
    merged. Nothing is written then.
    """
    a, b = both
    before = a.read_bytes()
    assert "would overwrite what is merged; name another" in str(merge(*both, "-w", a).exception)
    assert a.read_bytes() == before
    merge(*both, "-w", tmp_path / "c")
    (tmp_path / "cut").write_bytes(b.read_bytes()[:-40])
    for name in ("c", "cut"):
        said = str(merge(a, tmp_path / name, "-w", tmp_path / "d").exception)
        assert f"{name} is not a whole file of 'vxlane capture' on one node; end" in said
    assert not (tmp_path / "d").exists()


def test_capture_needs_a_file() -> None:
    """Without a command `vxlane capture` needs -w."""
    done = CliRunner().invoke(capture, [])
    assert done.exit_code == 2
    assert "Missing option '-w' / '--write'." in done.stderr
