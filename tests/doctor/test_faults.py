# SPDX-License-Identifier: Apache-2.0
"""Faults that are really made: the doctor finds that one, and its command mends it."""

from __future__ import annotations

import json
import os
import socket

import pytest
from standing import entered

from vxlane.datapath import loose, syscall
from vxlane.doctor import examine, trial
from vxlane.doctor.findings import Level
from vxlane.errors import ConfigError
from vxlane.lab.agents import program
from vxlane.probes import helpers
from vxlane.probes.instructions import PASS, answer
from vxlane.util.places import STATE_VARIABLE

ALIVE, DEAD = "node1", "node2"
"""Of the second one the agent was killed, so that nobody repairs what is broken there."""
_FILTER = "tc filter add dev cni0 ingress pref 7 bpf bytecode '1,6 0 0 4294967295,'"


class Doctor:
    """Examines the nodes of a lab."""

    def __init__(self, lab):
        self.lab = lab

    def run(self, node, function, *arguments):
        """Call in a node's namespace."""
        with entered(self.lab.netns(node)):
            return function(*arguments)

    def findings(self, node):
        """What is not well on a node."""
        found = self.run(node, examine.examine, self.lab.node(node).directory)
        return [finding for finding in found if finding.level is not Level.OK]

    def shell(self, node, *commands):
        """Run commands as they are told, in a node."""
        for command in commands:
            self.lab.exec(node, "sh", "-ec", command)


@pytest.fixture(scope="module")
def doctor(make_module_lab):
    """Two nodes, of which one's agent was killed. What the kernel can was tried once for all."""
    tried = helpers.results()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "results", lambda: tried)
        lab = make_module_lab(nodes=2, pods_per_node=1, kernel_only=0)
        lab.kill_agent(DEAD)
        yield Doctor(lab)


def vtep(lab):
    """MAC and underlay address of the node that lives."""
    return lab.node(ALIVE).vtep_mac, lab.address(ALIVE)


def faults(lab):
    """Name -> node, commands that break it, the check that finds it, what it says."""
    mac, address = vtep(lab)
    gateway = lab.node(ALIVE).pod_cidr.network_address
    stray = "02:00:00:00:00:99"
    overlay = "dev flannel.1"
    return {
        "bridge-nf": (ALIVE, "sysctl -qw net.bridge.bridge-nf-call-iptables=0", "br-netfilter"),
        "forwarding": (DEAD, "sysctl -qw net.ipv4.ip_forward=0", "ip-forward"),
        "windows": (
            ALIVE,
            "sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0",
            "conntrack-tcp",
        ),
        "mtu": (DEAD, f"ip link set {overlay} mtu 1300", "mtu"),
        "pod-mtu": (ALIVE, "ip link set dev cni0 mtu 1480", "mtu"),
        "offload": (ALIVE, "ethtool -K eth0 tx-udp_tnl-segmentation off", "offloads"),
        "filter": (ALIVE, f"tc qdisc add dev cni0 clsact; {_FILTER}", "tc-programs"),
        "shaper": (
            ALIVE,
            "tc qdisc add dev cni0 root tbf rate 1gbit burst 1mb latency 50ms",
            "shapers",
        ),
        "second-overlay": (
            ALIVE,
            f"ip link add vxlan9 type vxlan id 9 dstport 8472 local {address}",
            "port",
        ),
        "legacy": (ALIVE, "iptables-legacy -A FORWARD -s 192.0.2.1 -j DROP", "silent-rules"),
        "stale-fdb": (
            DEAD,
            f"bridge fdb add {stray} {overlay} dst 192.0.2.9 self permanent",
            "stale-entries",
        ),
        "stale-neighbour": (
            DEAD,
            f"ip neigh add 10.42.99.0 lladdr {mac} {overlay} nud permanent",
            "stale-entries",
        ),
        "stale-route": (
            DEAD,
            f"ip route add 10.42.99.0/24 via {gateway} {overlay} onlink",
            "stale-entries",
        ),
        "wrong-fdb": (
            DEAD,
            (
                f"bridge fdb del {mac} {overlay} dst {address} self;"
                f" bridge fdb add {stray} {overlay} dst {address} self permanent"
            ),
            "entries",
        ),
        "wrong-neighbour": (
            DEAD,
            f"ip neigh replace {gateway} lladdr {stray} {overlay} nud permanent",
            "entries",
        ),
        "no-route": (DEAD, f"ip route del {lab.node(ALIVE).pod_cidr}", "entries"),
    }


NAMES = [
    *("bridge-nf", "forwarding", "windows", "mtu", "pod-mtu", "offload", "filter", "shaper"),
    *("second-overlay", "legacy", "stale-fdb", "stale-neighbour", "stale-route", "wrong-fdb"),
    *("wrong-neighbour", "no-route"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_is_found_and_mended(doctor, name):
    """Of a fault one finding is told, by its own check, and its commands make it well again."""
    node, breaking, check = faults(doctor.lab)[name]
    before = doctor.findings(node)
    doctor.shell(node, breaking)
    found = [finding for finding in doctor.findings(node) if finding not in before]
    assert [finding.check for finding in found] == [check], found
    assert found[0].meaning
    doctor.shell(node, *found[0].fix)
    assert doctor.findings(node) == before


def test_a_node_that_is_well_has_nothing_to_tell(doctor):
    """With a living agent and nothing broken no check complains."""
    assert doctor.findings(ALIVE) == []


def test_a_program_by_tcx_is_found_and_mended(doctor):
    """A stranger's TCX program is named with the link that `bpftool link detach` ends."""
    made = loose.prog_load(b"".join(answer(PASS)))
    link = doctor.run(ALIVE, attach, made)
    (found,) = doctor.findings(ALIVE)
    assert (found.check, found.level) == ("tc-programs", Level.WARN)
    doctor.shell(ALIVE, *found.fix)
    assert doctor.findings(ALIVE) == []
    os.close(link)
    os.close(made)


def attach(made):
    """Attach a program to the bridge of this thread's namespace; its link."""
    return syscall.link_create(made, socket.if_nametoindex("cni0"), syscall.TcxHook.INGRESS)


def run(doctor, node, *arguments):
    """`vxlane doctor` as a person runs it."""
    env = {STATE_VARIABLE: str(doctor.lab.node(node).directory)}
    return doctor.lab.exec(node, program("vxlane"), "doctor", *arguments, env=env, check=False)


def test_the_exit_status_tells(doctor):
    """0: all is well; 1: something fails; 2: the command line is wrong."""
    assert run(doctor, ALIVE).returncode == 0
    dead = run(doctor, DEAD, "--json")
    assert dead.returncode == 1
    document = json.loads(dead.stdout)
    failed = [each for each in document["findings"] if each["level"] == "fail"]
    assert (document["worst"], [each["check"] for each in failed]) == ("fail", ["agent"])
    assert run(doctor, ALIVE, "--no-such-option").returncode == 2


def test_a_fix_that_is_tried_is_kept(doctor):
    """`--try` switches an offload on, watches and keeps it; what has no way back is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "SECONDS", 0.1)
        directory = doctor.lab.node(ALIVE).directory
        assert doctor.run(ALIVE, examine.try_fix, directory, "offloads") is None
        doctor.shell(ALIVE, "ethtool -K eth0 tx-udp_tnl-segmentation off")
        outcome = doctor.run(ALIVE, examine.try_fix, directory, "offloads")
        assert (outcome["kept"], outcome["before"]["lost"]) == (True, 0)
        assert doctor.findings(ALIVE) == []
        with pytest.raises(ConfigError, match=r"can't be taken back.*systemctl restart vxlane"):
            doctor.run(DEAD, examine.try_fix, doctor.lab.node(DEAD).directory, "agent")
    assert run(doctor, ALIVE, "--try", "agent").returncode == 2


def test_an_agent_that_was_killed_is_found_and_mended(doctor):
    """A dead agent is one finding, which is gone when an agent runs again."""
    assert [finding.check for finding in doctor.findings(DEAD)] == ["agent"]
    doctor.lab.start_agent(DEAD)
    assert doctor.findings(DEAD) == []
