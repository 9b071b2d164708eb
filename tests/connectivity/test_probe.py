# SPDX-License-Identifier: Apache-2.0
"""`vxlane test` on nodes of a lab, with the CNI plugins that made the lab's pods."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from dataclasses import dataclass

import pytest

from vxlane.lab import service
from vxlane.lab.agents import program

NODES = ("node1", "node2", "node3")


@dataclass(frozen=True)
class Cluster:
    """A lab, and `vxlane test` on its nodes."""

    lab: object

    def command(self, node, *arguments):
        """`vxlane test` as `vxlane lab exec` runs it on a node."""
        there = [program("vxlane"), "lab", "exec", self.lab.netns(node), "--"]
        return [*there, "vxlane", "test", *arguments, "--json"]

    def test(self, node, *arguments):
        """Exit status, and the findings by end and test."""
        command = self.command(node, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout, done.stderr
        made = json.loads(done.stdout)
        return done.returncode, {(each["to"], each["test"]): each for each in made["tests"]}

    @contextlib.contextmanager
    def serving(self, node):
        """`vxlane test --serve` beside the block: its process, and the address that it tells."""
        command = self.command(node, "--serve")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            told = ""
            while not told.endswith("}\n"):
                told += process.stdout.readline()
            try:
                yield process, json.loads(told)["address"]
            finally:
                process.kill()

    def traces(self, node):
        """What probe pods leave on a node while they are there: leases and interfaces."""
        leases = self.lab.node(node).directory / "cni" / "networks" / "cbr0"
        ports = self.lab.exec(node, "ip", "-br", "link", "show", "master", "cni0").stdout
        return sorted(file.name for file in leases.glob("10.*")), len(ports.splitlines())


@pytest.fixture
def cluster(lab):
    """The lab that all tests share: what is changed there is changed back."""
    return Cluster(lab)


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster):
    """Each test leaves the nodes without probe pods."""
    before = {node: cluster.traces(node) for node in NODES}
    yield
    assert {node: cluster.traces(node) for node in NODES} == before
    assert made_by(cluster) == set()
    assert not any((cluster.lab.node(node).directory / "probes").exists() for node in NODES)


def made_by(cluster):
    """The probe pods that notes of the lab's nodes tell of."""
    return {
        note.stem
        for node in NODES
        for note in (cluster.lab.node(node).directory / "probes").glob("*.json")
    }


def to(cluster, node, *, by_address=False):
    """How the table names a peer: by the source's name where an agent has saved one."""
    name = cluster.lab.address(node) if by_address else cluster.lab.netns(node)
    return f"{name} {cluster.lab.node(node).pod_cidr}"


def results(found, end):
    """Test -> result, of one end."""
    return {test: each["result"] for (to, test), each in found.items() if to == end}


def test_each_peer_is_tested_without_help(cluster):
    """To a node with vxlane and to one without: entries, ping and MTU pass, TCP is not tried."""
    status, found = cluster.test("node1")
    for node in ("node2", "node3"):
        assert results(found, to(cluster, node)) == {
            "entries": "passed",
            "ping": "passed",
            "mtu": "passed",
            "bypass": "passed",
        }
        assert found[to(cluster, node), "mtu"]["figure"] == 1450
    assert results(found, "-") == dict.fromkeys(("tcp", "udp", "service"), "skipped")
    assert status == 0


def test_a_node_without_vxlane_tests_its_kernel_path(cluster):
    """Where no programs are, the peers are read off the kernel, and the share is not tried."""
    status, found = cluster.test("node3", cluster.lab.address("node2"))
    assert {end for end, _ in found} == {to(cluster, "node2", by_address=True), "-"}
    assert results(found, to(cluster, "node2", by_address=True)) == {
        "entries": "passed",
        "ping": "passed",
        "mtu": "passed",
        "bypass": "skipped",
    }
    assert status == 0


def test_what_keeps_all_packets_from_the_bypass_is_said(cluster):
    """While the bypass is off the share is no failure, and its verdict and reason are told."""
    cluster.lab.ask("node1", op="bypass", enabled=False)
    try:
        status, found = cluster.test("node1", cluster.lab.netns("node2"))
    finally:
        cluster.lab.ask("node1", op="bypass", enabled=True)
    bypass = found[to(cluster, "node2"), "bypass"]
    assert (status, bypass["result"], bypass["figure"]) == (0, "skipped", 0)
    assert bypass["detail"].startswith("0 of 30 round trips at least; no_agent: ")


def test_a_pod_that_serves_is_tested_whole(cluster):
    """--serve answers TCP, UDP and a Service's clients, and Ctrl-C is its good end."""
    with cluster.serving("node2") as (server, address):
        service.provide(cluster.lab.netns("node1"), address)
        virtual = f"{service.VIRTUAL}:7"
        status, found = cluster.test("node1", "--target", address, "--service", virtual)
        cluster.lab.exec("node1", "nft", "delete", "table", "ip", "service")
        assert set(results(found, address).values()) == {"passed"}
        assert set(results(found, address)) == {"entries", "ping", "mtu", "tcp", "udp", "bypass"}
        assert found[address, "bypass"]["figure"] > 0.5
        assert found[virtual, "service"]["result"] == "passed"
        assert status == 0
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0


def test_a_closed_port_fails(cluster):
    """A target that refuses is a failed test with the kernel's word, and exit status 1."""
    address = cluster.lab.address("node2-pod1")
    status, found = cluster.test("node1", "--target", f"{address}:81")
    assert found[f"{address}:81", "tcp"]["result"] == "failed"
    assert found[f"{address}:81", "tcp"]["detail"] == "Connection refused"
    assert found[address, "ping"]["result"] == "passed"
    assert status == 1


@pytest.mark.parametrize(
    ("sender", "at", "device", "mtu", "usual"),
    [
        # A bridge lets 4 bytes more through, which could be a VLAN tag (net/core/dev.c).
        ("node1", "switch", "node2", 1396, 1500),
        ("node3", "node3", "flannel.1", 1350, 1450),
    ],
)
def test_a_narrow_path_is_measured(cluster, sender, at, device, mtu, usual):
    """Where the underlay carries 1,400 bytes, or flannel.1 1,350, that is found, and fails.

    The bridge drops what is bigger in silence, flannel.1 with an ICMP error.
    """
    lab = cluster.lab
    lab.exec(at, "ip", "link", "set", device, "mtu", str(mtu))
    try:
        status, found = cluster.test(sender, lab.address("node2"))
    finally:
        lab.exec(at, "ip", "link", "set", device, "mtu", str(usual))
    (mtu,) = [each for (_, test), each in found.items() if test == "mtu"]
    assert (mtu["figure"], mtu["result"]) == (1350, "failed")
    assert status == 1


def test_without_its_plugins_no_pod_is_begun(cluster, tmp_path):
    """What no plugin could remove is not made, and the next run has nothing to say of it."""
    (tmp_path / "bridge").symlink_to("/usr/lib/cni/bridge")
    command = cluster.command("node1", "--cni-bin-dir", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert f'CNI plugin "vxlane" is not in {tmp_path}; install it' in done.stderr


def test_a_killed_ones_pod_goes_with_the_next_run(cluster):
    """The next run removes the pod of a killed one, and leaves that of a living one alone."""
    before = len(cluster.traces("node2")[0])
    with cluster.serving("node2") as (living, _):
        with cluster.serving("node2") as (killed, _):
            killed.kill()
            killed.wait()
        assert len(made_by(cluster)) == 2
        assert len(cluster.traces("node2")[0]) == before + 2
        status, _ = cluster.test("node2", cluster.lab.netns("node1"))
        assert status == 0
        assert len(made_by(cluster)) == 1
        assert len(cluster.traces("node2")[0]) == before + 1
        assert living.poll() is None
        living.send_signal(signal.SIGTERM)
        assert living.wait(timeout=20) == 0


def test_peers_and_pods_are_completed(cluster):
    """The shell offers peers for NODE, pods of the node for --target, and a lab's namespaces."""
    lab = cluster.lab
    assert completed(cluster, "vxlane test 192.168.77.1") == {
        lab.address("node2"),
        lab.address("node3"),
    }
    assert completed(cluster, f"vxlane test {lab.netns('node2')}") == {lab.netns("node2")}
    for option in ("test --target", "profile --pod"):
        assert completed(cluster, f"vxlane {option} ") >= {lab.address("node1-pod1")}
    pod = lab.netns("node1-pod1")
    assert completed(cluster, f"vxlane lab exec {pod}") == {pod}


def completed(cluster, line):
    """What the shell offers behind `line` on node1."""
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    env |= {"_VXLANE_COMPLETE": "bash_complete"}
    env |= {"VXLANE_STATE_DIR": str(cluster.lab.node("node1").directory)}
    done = cluster.lab.exec("node1", program("vxlane"), env=env)
    return {offer.partition(",")[2] for offer in done.stdout.splitlines()}
