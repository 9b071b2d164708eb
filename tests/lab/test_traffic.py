# SPDX-License-Identifier: Apache-2.0
"""Real packets across the lab: what arrives, and which way it went."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from machinecan import BOTH_OPTIONS

from vxlane.datapath.abi import Program, Verdict
from vxlane.lab.waiting import wait_for

STREAM = Path(__file__).with_name("stream.py")
BYPASSES = {"encapsulated", "decapsulated", "switched"}
MB, GB = 1 << 20, 1 << 30


def exchange(lab, client, server, count, port):
    """Send `count` bytes each way at once; fail unless both ends received what the other sent."""
    serve = [sys.executable, STREAM, "serve", str(port), str(count)]
    with lab.spawn(server, *serve, stdout=-1) as listener:
        assert listener.stdout.readline() == "listening\n"
        connect = f"{lab.address(server)}:{port}"
        said = lab.exec(client, sys.executable, STREAM, "connect", connect, str(count), timeout=110)
        sent, received = said.stdout.split()
        assert listener.communicate(timeout=5)[0].split() == [received, sent]


def share(seen):
    """Of the packets that came to the two entrances, those that were bypassed."""
    entrances = ("from_pod", "from_nic")
    counted = {
        key: count
        for key, count in seen.items()
        if key[0] in entrances and key[1] not in {"not_ip", "not_overlay", "no_peer"}
    }
    bypassed = sum(count for key, count in counted.items() if key[1] in BYPASSES)
    return bypassed / sum(counted.values())


def test_ping_between_nodes(lab):
    """After one echo has gone both ways by the kernel, the following ones are bypassed whole."""
    with lab.verdicts("node1", "node2") as seen:
        argv = ["ping", "-c", "10", "-i", "0.05", lab.address("node2-pod1")]
        said = lab.exec("node1-pod1", *argv).stdout
    assert re.findall(r"ttl=(\d+)", said) == ["62"] * 10
    assert seen["from_pod", "encapsulated"] >= 16
    assert seen["from_nic", "decapsulated"] >= 16


def test_tcp_between_nodes(lab):
    """Data equal both ways at once, and nearly all packets bypassed in both directions."""
    with lab.verdicts("node1", "node2") as seen:
        exchange(lab, "node1-pod1", "node2-pod1", 200 * MB, port=7001)
    assert share(seen) > 0.95, dict(seen)
    assert seen["from_pod", "encapsulated"] > 1000
    assert seen["from_nic", "decapsulated"] > 1000


def test_tcp_on_one_node(lab):
    """Two pods of one node: switched straight into each other, nothing on the wire."""
    with lab.verdicts("node1") as seen:
        exchange(lab, "node1-pod1", "node1-pod2", 200 * MB, port=7002)
    assert share(seen) > 0.95, dict(seen)
    assert seen["from_pod", "switched"] > 1000
    assert seen["from_pod", "encapsulated"] == 0


@pytest.mark.parametrize(
    ("client", "server"), [("node1-pod1", "node3-pod1"), ("node3-pod2", "node1-pod2")]
)
def test_tcp_with_a_kernel_only_node(lab, client, server):
    """A node without vxlane exchanges data with one that has it, whoever connects."""
    with lab.verdicts("node1") as seen:
        exchange(lab, client, server, 100 * MB, port=7003)
    assert share(seen) > 0.95, dict(seen)
    assert seen["from_pod", "encapsulated"] > 500
    assert seen["from_nic", "decapsulated"] > 500


def test_kernel_path_between_nodes(lab):
    """While the programs stand aside nothing is bypassed and everything arrives."""
    for node in ("node1", "node2"):
        lab.ask(node, op="bypass", enabled=False)
    try:
        with lab.verdicts("node1", "node2") as seen:
            exchange(lab, "node1-pod1", "node2-pod1", 50 * MB, port=7004)
        assert not [key for key in seen if key[1] in BYPASSES]
        assert seen["from_pod", "no_agent"] > 0
    finally:
        for node in ("node1", "node2"):
            lab.ask(node, op="bypass", enabled=True)


def decode(capture, *fields):
    """The fields of each echo request in a capture, as tshark reads it; "outer,inner"."""
    argv = ["tshark", "-n", "-r", capture, "-d", "udp.port==8472,vxlan", "-Y", "icmp.type == 8"]
    argv += ["-T", "fields", *[word for field in fields for word in ("-e", field)]]
    lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    return [dict(zip(fields, line.split("\t"), strict=True)) for line in lines]


def test_frames_decode_as_flannels(lab, tmp_path):
    """On the wire a bypassed ping is VXLAN as a stock flannel node sends it, and valid inside."""
    capture = tmp_path / "echo.pcap"
    argv = ["tcpdump", "-Z", "root", "-U", "-c", "20", "-i", "eth0", "-w", capture]
    with lab.spawn("node1", *argv, "udp port 8472", stderr=-1) as tcpdump:
        assert "listening on eth0" in tcpdump.stderr.readline()
        with lab.verdicts("node1") as seen:
            lab.exec("node1-pod1", "ping", "-c", "10", "-i", "0.05", lab.address("node2-pod2"))
        tcpdump.wait(timeout=10)
    assert seen["from_pod", "encapsulated"] >= 8
    macs = lab.node("node1").vtep_mac, lab.node("node2").vtep_mac
    fields = ["ip.ttl", "ip.src", "udp.dstport", "vxlan.flags", "vxlan.vni"]
    frames = decode(capture, *fields, "eth.src", "eth.dst", "icmp.seq", "_ws.expert.message")
    assert [frame.pop("icmp.seq") for frame in frames] == [str(n) for n in range(1, 11)]
    for frame in frames:
        assert (frame.pop("eth.src")[18:], frame.pop("eth.dst")[18:]) == macs
        assert frame == {
            "ip.ttl": "64,63",
            "ip.src": f"{lab.address('node1')},{lab.address('node1-pod1')}",
            "udp.dstport": "8472",
            "vxlan.flags": "0x0800",
            "vxlan.vni": "1",
            "_ws.expert.message": "",
        }


def await_bypassed(lab, more):
    """Return when node1 has encapsulated so many more packets."""
    with lab.maps("node1") as maps:

        def count():
            return maps.counters()[Program.FROM_POD][Verdict.ENCAPSULATED].packets

        goal = count() + more
        wait_for(lambda: count() >= goal, f"{more} bypassed packets", seconds=20)


def test_agent_killed_under_traffic(make_lab):
    """The agent is killed with -9 and started again under traffic: not one echo is lost."""
    lab = make_lab(nodes=2, pods_per_node=1, kernel_only=0)
    argv = ["ping", "-i", "0.005", lab.address("node2-pod1")]
    with lab.spawn("node1-pod1", *argv, stdout=-1) as ping:
        await_bypassed(lab, 100)
        lab.kill_agent("node1")
        await_bypassed(lab, 100)
        lab.start_agent("node1")
        await_bypassed(lab, 50)
        ping.send_signal(signal.SIGINT)
        said, _ = ping.communicate(timeout=20)
    # The signal may come before the answer to the last one.
    numbers = [int(number) for number in re.findall(r"icmp_seq=(\d+) ", said)]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 249


@pytest.mark.parametrize("method", BOTH_OPTIONS)
def test_tcp_by_either_method(make_lab, method):
    """Attached by TCX or by clsact, the programs bypass the same."""
    lab = make_lab(nodes=2, pods_per_node=1, kernel_only=0, agent_options=["--attach", method])
    with lab.verdicts("node1", "node2") as seen:
        exchange(lab, "node1-pod1", "node2-pod1", 50 * MB, port=7006)
    assert share(seen) > 0.95, dict(seen)
    filters = lab.exec("node1", "tc", "filter", "show", "dev", "eth0", "ingress").stdout
    assert ("from_nic" in filters) is (method == "clsact")


@pytest.fixture
def without_offloads(lab):
    """Every segmentation offload of the NICs is off."""

    def turn(state):
        features = [("tso", state), ("gso", state), ("tx-udp_tnl-segmentation", state)]
        for node in ("node1", "node2"):
            lab.exec(node, "ethtool", "-K", "eth0", *[word for pair in features for word in pair])

    turn("off")
    yield
    turn("on")


@pytest.mark.usefixtures("without_offloads")
def test_tcp_without_offloads(lab):
    """With every segmentation offload of the NICs off, the data is as equal and as bypassed."""
    with lab.verdicts("node1", "node2") as seen:
        exchange(lab, "node1-pod1", "node2-pod1", 100 * MB, port=7005)
    assert share(seen) > 0.95, dict(seen)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_ten_gigabytes(lab):
    """10 GB each way at once between two nodes, data equal."""
    for part in range(10):
        exchange(lab, "node1-pod1", "node2-pod1", GB, port=7010 + part)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("without_offloads")
def test_ten_gigabytes_without_offloads(lab):
    """The same with every segmentation offload of the NICs off."""
    for part in range(10):
        exchange(lab, "node1-pod1", "node2-pod1", GB, port=7020 + part)
