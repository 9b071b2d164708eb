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
_SHAPER = "root tbf rate 1gbit burst 1mb latency 50ms"
_FILTER = "ingress pref 7 bpf bytecode '1,6 0 0 4294967295,'"
_FDB = "dev flannel.1 dst {address} self"
_STRAY = "02:00:00:00:00:99"
FAULTS = {
    "bridge-nf": (ALIVE, "br-netfilter", "sysctl -qw net.bridge.bridge-nf-call-iptables=0"),
    "forwarding": (DEAD, "ip-forward", "sysctl -qw net.ipv4.ip_forward=0"),
    "windows": (
        *(ALIVE, "conntrack-tcp"),
        "sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=0",
    ),
    "mtu": (DEAD, "mtu", "ip link set flannel.1 mtu 1300"),
    "pod-mtu": (ALIVE, "mtu", "ip link set cni0 mtu 1480"),
    "offload": (ALIVE, "offloads", "ethtool -K eth0 tx-udp_tnl-segmentation off"),
    "filter": (
        *(ALIVE, "tc-programs"),
        f"tc qdisc add dev cni0 clsact; tc filter add dev cni0 {_FILTER}",
    ),
    "shaper": (ALIVE, "shapers", f"tc qdisc add dev cni0 {_SHAPER}"),
    "pod-shaper": (ALIVE, "shapers", f"tc qdisc add dev {{veth}} {_SHAPER}"),
    "pod-mac": (
        *(ALIVE, "pod-macs"),
        f"nsenter --net=/run/netns/{{pod}} ip link set eth0 address {_STRAY}",
    ),
    "second-overlay": (
        *(ALIVE, "port"),
        "ip link add vxlan9 type vxlan id 9 dstport 8472 local {address}",
    ),
    "legacy": (ALIVE, "silent-rules", "iptables-legacy -w -A FORWARD -s 192.0.2.1 -j DROP"),
    "dead-next-hop": (ALIVE, "peers", "ip neigh replace {other} dev eth0 nud failed"),
    "stale-fdb": (
        *(DEAD, "stale-entries"),
        f"bridge fdb add {_STRAY} dev flannel.1 dst 192.0.2.9 self permanent",
    ),
    "stale-neighbour": (
        *(DEAD, "stale-entries"),
        "ip neigh add 10.42.99.0 lladdr {mac} dev flannel.1 nud permanent",
    ),
    "stale-route": (
        *(DEAD, "stale-entries"),
        "ip route add 10.42.99.0/24 via {gateway} dev flannel.1 onlink",
    ),
    "wrong-fdb": (
        *(DEAD, "entries"),
        f"bridge fdb del {{mac}} {_FDB}; bridge fdb add {_STRAY} {_FDB} permanent",
    ),
    "wrong-neighbour": (
        *(DEAD, "entries"),
        f"ip neigh replace {{gateway}} lladdr {_STRAY} dev flannel.1 nud permanent",
    ),
    "no-route": (DEAD, "entries", "ip route del {cidr}"),
}
"""Name -> node, the check that finds it, the commands that make it."""


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


def names(lab):
    """What the commands of `FAULTS` leave open."""
    node = lab.node(ALIVE)
    return {
        "mac": node.vtep_mac,
        "address": node.address,
        "cidr": node.pod_cidr,
        "gateway": node.pod_cidr.network_address,
        "other": lab.address(DEAD),
        "veth": lab.pod(f"{ALIVE}-pod1").veth,
        "pod": lab.netns(f"{ALIVE}-pod1"),
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_mended(doctor, name):
    """Of a fault one finding is told, by its own check, and its commands make it well again."""
    node, check, breaking = FAULTS[name]
    before = doctor.findings(node)
    doctor.shell(node, breaking.format_map(names(doctor.lab)))
    found = [finding for finding in doctor.findings(node) if finding not in before]
    assert [finding.check for finding in found] == [check], found
    assert found[0].meaning
    doctor.shell(node, *found[0].fix)
    assert doctor.findings(node) == before


def test_a_node_that_is_well_has_nothing_to_tell(doctor):
    """With a living agent and nothing broken no check complains."""
    assert doctor.findings(ALIVE) == []


def test_a_pod_that_bridges_is_no_fault(doctor):
    """KubeVirt gives the pod's end another name and MAC; its machine sends from the old one."""
    pod, end = doctor.lab.netns(f"{DEAD}-pod1"), doctor.lab.pod(f"{DEAD}-pod1")
    before = doctor.findings(DEAD)
    change = f"ip -n {pod} link set {{}} down address {{}} name {{}}"
    doctor.shell(DEAD, change.format("eth0", _STRAY, "eth0-nic"))
    assert doctor.findings(DEAD) == before
    doctor.shell(DEAD, change.format("eth0-nic", end.mac, "eth0"), f"ip -n {pod} link set eth0 up")


@pytest.mark.tcx
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
    """0: all is well; 1: something fails; 2: it could not be told, or the archive not written."""
    assert run(doctor, ALIVE).returncode == 0
    dead = run(doctor, DEAD, "--json")
    assert dead.returncode == 1
    document = json.loads(dead.stdout)
    failed = [each for each in document["findings"] if each["level"] == "fail"]
    assert (document["worst"], [each["check"] for each in failed]) == ("fail", ["agent"])
    assert run(doctor, ALIVE, "--no-such-option").returncode == 2
    for place in ("/dev/full", "/nosuch/x.tar.gz", "/proc/x.tar.gz"):
        assert run(doctor, ALIVE, "--bundle", place).returncode == 2


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
    """A dead agent is one finding, which is gone when an agent runs again.

    So is a set, whose changes have no events, when that agent has a shorter --revalidate.
    """
    assert [finding.check for finding in doctor.findings(DEAD)] == ["agent"]
    rule = "iptables -A FORWARD -m set --match-set denied src -j DROP"
    doctor.shell(DEAD, "ipset create denied hash:ip", rule)
    (agent, sets) = doctor.findings(DEAD)
    assert (agent.check, sets.check) == ("agent", "silent-rules")
    (command,) = sets.fix
    doctor.lab.start_agent(DEAD, *command.removeprefix("vxlane agent ").split())
    assert doctor.findings(DEAD) == []
