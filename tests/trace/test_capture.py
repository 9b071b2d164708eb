# SPDX-License-Identifier: Apache-2.0
"""`vxlane capture` under real traffic, read by programs that know nothing of vxlane."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from labundertest import LabUnderTest
from listening import CLIENT, NODE, SERVER, ping, tshark

from vxlane.lab.agents import program
from vxlane.trace.pcapng_reader import read


def capture(lab: LabUnderTest, file: Path, *options: str, identifier: int) -> None:
    """Capture three echoes and their answers on node1."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    argv = [program("vxlane"), "capture", "-w", str(file), "--proto", "icmp", *options]
    with lab.spawn(NODE, *argv, env=env, stderr=subprocess.PIPE) as child:
        assert child.stderr
        assert child.stderr.readline() == "listening; Ctrl-C ends it\n"
        ping(lab, CLIENT, SERVER, 3, identifier)
        child.send_signal(signal.SIGINT)
        assert child.stderr.read().endswith(" packets, 0 lost\n")
        assert child.wait() == 0


def test_inner(lab: LabUnderTest, tmp_path: Path) -> None:
    """Tshark reads hook, verdict, the pods' packet without a tunnel, and their sound checksums."""
    file = tmp_path / "x.pcapng"
    capture(lab, file, identifier=201)
    fields = ["frame.interface_name", "frame.comment", "ip.src", "ip.dst", "icmp.ident"]
    rows = [row for row in tshark(file, *fields, "icmp.checksum.status") if row[4] == "201"]
    ends = lab.address(CLIENT), lab.address(SERVER)
    there, back = (*ends, "201", "1"), (*ends[::-1], "201", "1")
    sent, received = "encapsulated: bypassed: pod -> NIC", "decapsulated: bypassed: NIC -> pod"
    assert [row for row in rows if "bypassed" in row[1]] == [
        ("from_pod", sent, *there),
        ("from_nic", received, *back),
    ] * 2
    assert {row[0] for row in rows} == {"from_pod", "to_nic", "from_nic", "to_pod"}


def test_outer(lab: LabUnderTest, tmp_path: Path) -> None:
    """With --outer what goes into a tunnel is a tunnel from node to node, to tshark by their names
    and the pod's; of a cut packet the file tells both lengths. Tcpdump finds the same packets.
    """
    file = tmp_path / "x.pcapng"
    options = [
        "--outer",
        "--snaplen",
        "100",
        "--verdict",
        "encapsulated",
        "--pod",
        lab.pod(CLIENT).name,
    ]
    capture(lab, file, *options, identifier=202)
    rows = tshark(file, "ip.src_host", "vxlan.vni", "udp.dstport", "frame.cap_len", "frame.len")
    assert len(rows) >= 2
    names = f"{lab.node(NODE).name},lab/{lab.pod(CLIENT).name}"
    assert {*rows} == {(names, "1", "8472", "100", "148")}
    ends = f"src {lab.address(NODE)} and dst {lab.address('node2')} and udp port 8472"
    said = subprocess.run(
        ["tcpdump", "-nr", file, ends], check=True, capture_output=True, text=True
    )
    assert said.stdout.count("ICMP echo request, id 202") == len(rows)


def test_into_a_pipe(lab: LabUnderTest) -> None:
    """Standard output is a capture too, whole when the command ends by --count."""
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    argv = [program("vxlane"), "capture", "-w", "-", "--count", "3", "--port", "4242"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with lab.spawn(NODE, *argv, env=env, **pipes) as child:
        reader = ["tshark", "-r", "-", "-T", "fields", "-e", "udp.length"]
        with subprocess.Popen(reader, stdin=child.stdout, stdout=subprocess.PIPE) as shown:
            while child.poll() is None:
                lab.exec(CLIENT, "bash", "-c", f"echo x >/dev/udp/{lab.address(SERVER)}/4242")
            assert shown.stdout
            assert shown.stdout.read() == b"10\n" * 3


def test_names_of_each_file(lab: LabUnderTest, tmp_path: Path) -> None:
    """A file that begins after a pod was made has its name."""
    file, directory = tmp_path / "x.pcapng", lab.node(NODE).directory
    env = os.environ | {"VXLANE_STATE_DIR": str(directory)}
    argv = [program("vxlane"), "capture", "-w", str(file), "--rotate", "1K", "--keep", "99"]
    made = directory / "pods" / "made,eth0.json"
    with lab.spawn(NODE, *argv, env=env, stderr=subprocess.PIPE) as child:
        assert child.stderr
        assert child.stderr.readline() == "listening; Ctrl-C ends it\n"
        made.write_text('{"name": "lab/later", "addresses": ["10.42.1.77"]}')
        try:
            ping(lab, CLIENT, SERVER, 10, 204)
            child.send_signal(signal.SIGINT)
            assert child.wait() == 0
        finally:
            made.unlink()
    oldest = file.with_name(f"{file.name}.{len(list(tmp_path.iterdir())) - 1}")
    assert b"lab/later" in file.read_bytes()
    assert b"lab/later" not in oldest.read_bytes()


TAGGED = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
    sender.bind(("eth0", 0))
    sender.send(bytes.fromhex(sys.argv[1]))
"""


def test_a_vlan_tag(lab: LabUnderTest, tmp_path: Path) -> None:
    """A tagged frame of a pod is in the file with its tag, which the kernel has taken off it."""
    file = tmp_path / "x.pcapng"
    frame = bytes.fromhex("ffffffffffff 020000000001 8100 a005 88b5") + bytes(46)
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    argv = [program("vxlane"), "capture", "-w", str(file), "--verdict", "not_ip"]
    with lab.spawn(NODE, *argv, env=env, stderr=subprocess.PIPE) as child:
        assert child.stderr
        assert child.stderr.readline() == "listening; Ctrl-C ends it\n"
        lab.exec(CLIENT, sys.executable, "-c", TAGGED, frame.hex())
        child.send_signal(signal.SIGINT)
        assert child.wait() == 0
    rows = tshark(file, "frame.interface_name", "vlan.id", "vlan.priority", "frame.len")
    assert ("from_pod", "5", "5", "64") in rows


def test_no_room(lab: LabUnderTest, tmp_path: Path) -> None:
    """A capture whose file finds no room any more says so, and how many packets the file holds,
    which `vxlane path` and tshark read.
    """
    file = tmp_path / "x.pcapng"
    env = os.environ | {"VXLANE_STATE_DIR": str(lab.node(NODE).directory)}
    limited = f"ulimit -f 8; exec {program('vxlane')} capture -w {file}"
    with lab.spawn(NODE, "bash", "-c", limited, env=env, stderr=subprocess.PIPE) as child:
        assert child.stderr
        assert child.stderr.readline() == "listening; Ctrl-C ends it\n"
        ping(lab, CLIENT, SERVER, 50, 203)
        counts, failure = child.stderr.read().splitlines()
        assert child.wait() == 1
    assert failure == f"vxlane: write {file}: File too large"
    packets = len(read(file).packets)
    assert packets > 10
    assert counts == f"{packets} packets, 0 lost"
    assert len(tshark(file, "frame.number")) == packets
