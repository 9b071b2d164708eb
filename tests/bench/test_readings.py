# SPDX-License-Identifier: Apache-2.0
"""What other programs and the kernel print, read."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest

from vxlane.bench import apps, cpu, services, snmp, talk, witness
from vxlane.bench.cpu import CpuTime
from vxlane.bench.ends import Ends
from vxlane.bench.witness import Check
from vxlane.errors import ToolError
from vxlane.lab.plan import LabPod, plan_nodes

STAT = """cpu  1000 0 500 9000 300 10 240 50 0 0
cpu0 500 0 250 4500 150 5 120 25 0 0
cpu1 500 0 250 4500 150 5 120 25 0 0
"""


def test_cpu_time():
    """Waiting and what a hypervisor took are no work."""
    ticks = os.sysconf("SC_CLK_TCK")
    now = cpu.of(STAT)
    assert now == CpuTime(busy=1750 / ticks, softirq=240 / ticks)
    assert now - CpuTime(17.0, 2.0) == CpuTime(1750 / ticks - 17.0, 240 / ticks - 2.0)


def test_cpu_time_is_one_read_a_machine():
    """More would be other processes' time in what is measured."""
    asked = []

    def end(machine):
        return SimpleNamespace(machine=machine, read=lambda file: asked.append(file) or STAT)

    assert cpu.read(Ends(end("a"), end("b"), "")).machines == (cpu.of(STAT),) * 2
    assert asked == ["/proc/stat"] * 2


def test_packets_of_devices():
    """The tenth number of a line is the packets that a device has sent."""
    text = (
        "Inter-|\n face |\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\nlo:0 0 0 0 0 0 0 0 0 7"
    )
    assert witness.sent_packets(text) == {"eth0": 10, "lo": 7}


def test_datagrams_that_a_socket_drops():
    """The kernel names its counters in one line and has their values in the next."""
    text = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams InErrors RcvbufErrors\nUdp: 5 7 6\nUdpLite: X\n"
    assert snmp.socket_drops(text) == 6
    assert snmp.datagrams_in(text) == 12
    assert snmp.fragments("Ip: ReasmReqds ReasmOKs FragCreates\nIp: 5 1 30\n") == 35


def pods_of(*, kernel_only):
    """Two pods of two nodes, of which the last `kernel_only` run nothing of vxlane."""
    nodes = plan_nodes("lab", 2, kernel_only=kernel_only)
    pods = [
        LabPod(f"{node.name}-pod1", node.name, IPv4Address(1), f"veth-{node.name}", "")
        for node in nodes
    ]
    return pods, {node.name: node for node in nodes}


def test_the_bypass_leaves_no_trace_on_the_kernel_path():
    """Neither flannel.1 of the sender nor the veth of the receiver may send what is bypassed."""
    (source, target), nodes = pods_of(kernel_only=0)
    assert witness.checks("bypass", source, target, nodes) == [
        Check((source.name, "eth0"), ("lab-node1", "flannel.1"), by_kernel=False),
        Check((source.name, "eth0"), ("lab-node2", "veth-lab-node2"), by_kernel=False),
    ]


def test_a_stock_node_has_its_own_path():
    """From a stock node packets leave by its flannel.1, and are bypassed where they arrive."""
    (target, source), nodes = pods_of(kernel_only=1)
    passed = {
        check.passed: check.by_kernel for check in witness.checks("bypass", source, target, nodes)
    }
    assert passed == {("lab-node2", "flannel.1"): True, ("lab-node1", "veth-lab-node1"): False}


@pytest.mark.parametrize(
    ("by_kernel", "carried", "words"),
    [
        (False, 0, ""),
        (False, 9, "9.0% .* go past it"),
        (True, 98, ""),
        (True, 3, "take the kernel"),
    ],
)
def test_the_wrong_path_is_a_complaint(by_kernel, carried, words):
    """A few packets may take the kernel path beside the bypass, and most have to on stock."""
    check = Check(("pod", "eth0"), ("node", "flannel.1"), by_kernel)
    before = {("pod", "eth0"): 50, ("node", "flannel.1"): 7}
    after = {("pod", "eth0"): 150, ("node", "flannel.1"): 7 + carried}
    said = witness.complaint([check], before, after, witness.MOST_PAST)
    assert bool(said) == bool(words)
    if words:
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(said)


def test_talk_prints_numbers():
    """Anything else is told with what was printed."""
    assert talk.parse("12 340 560 780\n") == (12, 340, 560, 780)
    with pytest.raises(ToolError, match="no response"):
        talk.parse("no response\n")


WRK = """\
Running 1s test @ http://10.42.2.2:8080/
  Latency Distribution
     50%  151.00us
     75%    0.90ms
     90%    1.00ms
     99%    1.50ms
  20511 requests in 1.10s, 5.01MB read
Requests/sec:  18646.10
Transfer/sec:      4.55MB
"""
REDIS = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET","98039.22","0.266","0.104","0.247","0.391","0.519","1.087"
"""


def test_wrk():
    """Requests a second, median and 99th percentile in us, and the number of requests."""
    assert apps.wrk(WRK) == (18646.1, 151.0, 1500.0, 20511)
    with pytest.raises(ToolError, match="wrk said"):
        apps.wrk(WRK + "  Socket errors: connect 0, read 3\n")


def test_redis_benchmark():
    """Requests a second, median and 99th percentile in us."""
    assert apps.redis_benchmark(REDIS) == pytest.approx((98039.22, 247, 519))
    with pytest.raises(ToolError, match="Could not connect"):
        apps.redis_benchmark("Could not connect to Redis\n")


def test_rules_of_many_services():
    """Each Service has a portal, a chain of its own, and a chain for each of two endpoints."""
    lines = services.rules(300).splitlines()
    assert sum("KUBE-SERVICES ip daddr" in line for line in lines) == 300
    assert sum("dnat to" in line for line in lines) == 600
    assert len({line.split()[7] for line in lines if "counter jump" in line}) == 300


def test_talk_needs_a_compiler(tmp_path, monkeypatch):
    """Without a compiler the message names what to install."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ToolError, match="install gcc or clang"):
        talk.build(Path(tmp_path))
