# SPDX-License-Identifier: Apache-2.0
"""What each check says of facts that a lab can't have, and of those around its limits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from wellnode import (
    BRIDGE,
    NOW,
    PEER,
    SECOND,
    VETH,
    VTEP,
    WELL,
    complaints,
    link,
    told,
)

from vxlane.doctor.checks import agent, settings
from vxlane.doctor.checks.all import CHECKS, findings
from vxlane.doctor.facts import Conntrack, Program, Tunnel
from vxlane.doctor.findings import Level
from vxlane.host.nexthops import NextHop
from vxlane.host.offloads import Feature
from vxlane.probes.helpers import Answer


def test_a_well_node_has_a_word_of_each_check():
    """Every check but that of unreadable rules says that all is well, once."""
    found = findings(WELL)
    assert [finding for finding in found if finding.level is not Level.OK] == []
    assert len({finding.check for finding in found}) == len(found) == len(CHECKS) - 1


def test_every_check_is_explained():
    """docs/operate.md has a row for each check, and for no other."""
    text = (Path(__file__).parents[2] / "docs/operate.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([\w-]+)`", text.partition("| check |")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert sorted(rows) == sorted({finding.check for finding in findings(WELL)} | {"rules"})


@pytest.mark.parametrize(
    ("release", "is_bad"), [("5.14.0-rc1", True), ("5.15.0-91-generic", False), ("odd", True)]
)
def test_kernel(release, is_bad):
    """Kernels before 5.15 fail."""
    assert [check for check, *_ in told("kernel", release=release)] == ["kernel"] * is_bad


def answered(**answers):
    """The probes with other answers."""
    return tuple(
        replace(each, answer=answers.get(each.name, each.answer), is_needed=each.name in _NEEDED)
        for each in WELL.kernel.probes
    )


_NEEDED = {"redirect_peer", "encapsulate"}


@pytest.mark.parametrize(
    ("answers", "levels"),
    [
        ({"redirect_peer": Answer.NO}, ["fail"]),
        ({"redirect_peer": Answer.UNKNOWN}, ["warn"]),
        ({"peer_counters": Answer.NO, "tcx": Answer.NO}, []),
        ({"clsact": Answer.NO, "tcx": Answer.NO}, ["fail"]),
    ],
)
def test_helpers(answers, levels):
    """A needed helper fails, one that only helps does not; one way to attach is enough."""
    found = told("kernel", probes=answered(**answers))
    assert [(check, level) for check, level, _ in found] == [("helpers", each) for each in levels]


def test_compiler():
    """Bcc and headers are asked for by the packages that have them."""
    assert told("kernel", has_bcc=False) == [
        ("compiler", "fail", ("apt-get install python3-bpfcc",))
    ]
    assert told("kernel", headers="") == [("compiler", "fail", ("apt-get install linux-libc-dev",))]
    assert told("kernel", has_compiled=True, has_bcc=False, headers="") == []


def lease(seconds):
    """Settings whose lease has so long to go."""
    return replace(WELL.agent.settings, lease_until=NOW + seconds * SECOND)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"settings": lease(-1)}, [("lease", "fail")]),
        ({"settings": lease(1000)}, [("lease", "fail")]),
        ({"pid": None, "settings": lease(-1)}, [("agent", "fail")]),
        ({"status": {"error": "no answer"}}, [("agent", "fail")]),
        ({"status": {"waiting_for": "etcd"}}, [("agent", "warn")]),
        ({"status": {"source_error": "nodes.yaml: no such file"}}, [("agent", "fail")]),
        ({"status": {"failures": ["a", "b"], "problems": ["c"]}}, [("agent", "warn")] * 3),
        ({"maps_error": "none", "settings": None}, [("bpffs", "fail")]),
        ({"maps_error": "none", "settings": None, "pid": None}, [("agent", "fail")]),
    ],
)
def test_agent(changes, found):
    """A dead agent is one finding; of a living one its word, its lease and its pins are told."""
    assert [(check, level) for check, level, _ in told("agent", **changes)] == found


@pytest.mark.parametrize(
    ("wanted", "command"),
    [("on", "systemctl restart vxlane"), ("off", "vxlane cluster enable node1 --yes")],
)
def test_a_bypass_that_is_switched_off(wanted, command):
    """An agent that starts again asks the cluster, so only the cluster ends what it wants."""
    status = {"node": "node1", "bypass": "off", "wanted": wanted}
    assert told("agent", settings=lease(-1), status=status)[0] == ("lease", "fail", (command,))


def test_a_problem_is_not_said_to_exclude_its_node():
    """Some nodes with a problem are served, such as this one with another address on its cni0."""
    sentence = "node node1: new pods fail: cni0 has an address outside the pod CIDR"
    facts = replace(WELL, agent=replace(WELL.agent, status={"problems": [sentence]}))
    [found] = agent.agent(facts)
    assert (found.says, found.level) == (sentence, Level.WARN)
    assert found.meaning == "that node, or its entry, is not as it should be"


def with_settings(**values):
    """What is told of other kernel settings; None takes one away."""
    changed = {**WELL.sysctls, **{getattr(settings, name): v for name, v in values.items()}}
    kept = {name: value for name, value in changed.items() if value is not None}
    return complaints(replace(WELL, sysctls=kept))


def test_bridge_netfilter():
    """Where br_netfilter is not loaded, loading it comes first."""
    (found,) = with_settings(BRIDGE_NETFILTER=None)
    assert found[:2] == ("br-netfilter", "fail")
    assert found[2][0] == "modprobe br_netfilter"


def test_conntrack_windows():
    """Strict windows warn while something is bypassed, and fail where a rule drops INVALID."""
    assert [found[:2] for found in with_settings(LIBERAL="0")] == [("conntrack-tcp", "warn")]
    strict = replace(WELL, sysctls={**WELL.sysctls, settings.LIBERAL: "0"})
    dropping = replace(strict, rules=replace(WELL.rules, invalid=("nft ip filter FORWARD",)))
    assert [found[:2] for found in complaints(dropping)] == [("conntrack-tcp", "fail")]
    idle = replace(dropping, agent=replace(WELL.agent, settings=lease(-1), pid=None))
    assert [found[0] for found in complaints(idle)] == ["agent"]
    assert with_settings(LIBERAL=None, IGNORE_RST=None) == []


@pytest.mark.parametrize(("count", "level"), [(699, None), (700, "warn"), (900, "fail")])
def test_conntrack_size(count, level):
    """From 70 % on it warns, from 90 % on it fails, with twice the size to set."""
    found = complaints(replace(WELL, conntrack=Conntrack(count=count, most=1000)))
    larger = ("sysctl -w net.netfilter.nf_conntrack_max=2000",)
    assert found == ([("conntrack-size", level, larger)] if level else [])


def test_reverse_path_filter():
    """A strict filter is told only if it has dropped something; the greater setting holds."""
    strict = {settings.reverse_path("eth0"): "1"}
    quiet = replace(WELL, sysctls=WELL.sysctls | strict)
    assert complaints(quiet) == []
    assert complaints(replace(quiet, reverse_path_drops=5)) == [
        ("rp-filter", "warn", ("sysctl -w net/ipv4/conf/eth0/rp_filter=2",))
    ]
    loose = replace(quiet, sysctls=quiet.sysctls | {settings.reverse_path("all"): "2"})
    assert complaints(replace(loose, reverse_path_drops=5)) == []


@pytest.mark.parametrize(
    ("links", "fix"),
    [
        ({"nic": link(2, "eth0", mtu=1400)}, "ip link set flannel.1 mtu 1350"),
        ({"vtep": link(3, "flannel.1", "vxlan", mtu=1300)}, "ip link set flannel.1 mtu 1450"),
        ({"bridges": (link(4, "cni0", "bridge", mtu=1500),)}, "ip link set cni0 mtu 1450"),
        ({"veths": (VETH, link(6, "veth2", "veth", mtu=1500))}, "ip link set veth2 mtu 1450"),
        ({"pod_mtu": 1500}, "systemctl restart vxlane    # or flanneld"),
    ],
)
def test_mtu(links, fix):
    """The device that is out of line is named, and what brings it into line."""
    assert [(check, fixes) for check, _, fixes in told("links", **links)] == [("mtu", (fix,))]


def test_path_mtu():
    """A way to a peer that takes less than the NIC has room for less too."""
    fix = ("ip link set flannel.1 mtu 1350",)
    ways = {PEER: NextHop(2, PEER, path_mtu=1400)}
    assert told("peers", ways=ways) == [("mtu", "fail", fix)]
    assert told("peers", ways={PEER: NextHop(2, PEER, path_mtu=1500)}) == []


def test_offloads():
    """What is off and can be switched on is told; what the hardware lacks, or a veth, is not."""
    off = Feature(is_on=False, is_changeable=True)
    fix = ("ethtool -K eth0 tx-udp_tnl-segmentation on",)
    assert told("links", features={"tx-udp_tnl-segmentation": off}) == [("offloads", "warn", fix)]
    assert told("links", features={"rx-gro": replace(off, is_changeable=False)}) == []
    assert told("links", features={"rx-gro": off}) != []
    veth = link(2, "eth0", "veth", mtu=1500)
    assert told("links", nic=veth, features={"rx-gro": off}) == []


@pytest.mark.parametrize(
    ("program", "fix"),
    [
        (Program(hook="ingress", name="u32", priority=7), "tc filter del dev cni0 ingress pref 7"),
        (Program(hook="egress", name="x", link=9), "bpftool link detach id 9"),
        (Program(hook="egress", name="x"), "bpftool net detach tcx_egress dev cni0"),
        (Program(hook="xdp", name=""), "ip link set dev cni0 xdp off"),
    ],
)
def test_programs(program, fix):
    """Each kind of program is taken off by a command of its own."""
    bridge = replace(BRIDGE, programs=(program,))
    assert told("links", bridges=(bridge,)) == [("tc-programs", "warn", (fix,))]


def test_port():
    """Another VXLAN device counts if it has our port."""
    ours = Tunnel(name="flannel.1", vni=1, port=8472)
    other = Tunnel(name="vxlan9", vni=9, port=8472)
    assert told("links", tunnels=(ours, other)) == [("port", "warn", ("ip link del vxlan9",))]
    assert told("links", tunnels=(ours, replace(other, port=4789))) == []


def test_vtep():
    """Without a VXLAN device, or with one that is down, there is no overlay."""
    assert [found[:2] for found in told("links", vtep=None)] == [("vtep", "fail")]
    down = replace(VTEP, device=replace(VTEP.device, is_up=False))
    assert told("links", vtep=down) == [("vtep", "fail", ("ip link set flannel.1 up",))]


def test_sets():
    """Ipsets are told unless approvals are short enough for what changes unseen."""
    assert told("rules", sets=("denied",)) == [
        ("silent-rules", "warn", ("vxlane agent --revalidate 10",))
    ]
    short = replace(WELL.agent.settings, revalidate=10 * SECOND)
    calm = replace(WELL, agent=replace(WELL.agent, settings=short))
    assert complaints(replace(calm, rules=replace(WELL.rules, sets=("denied",)))) == []


def test_flowtables():
    """A flowtable is named as nft takes it."""
    fix = ("nft delete flowtable inet filter ft",)
    assert told("rules", flowtables=("inet filter ft",)) == [("flowtables", "warn", fix)]


def test_engines():
    """Engines in netfilter are well; one that judges packets in programs warns."""
    chains = frozenset({"cali-FORWARD", "KUBE-ROUTER-FORWARD"})
    assert told("rules", chains=chains) == []
    says = [f.says for f in findings(replace(WELL, rules=replace(WELL.rules, chains=chains)))]
    assert "calico, kube-router in netfilter, which vxlane heeds" in says
    veth = replace(VETH, programs=(Program(hook="ingress", name="cil_from_contai", link=3),))
    checks = [check for check, *_ in told("links", veths=(veth,))]
    assert checks == ["tc-programs", "policy-engine"]


def mechanism(kind, **more):
    """One that the agent tells."""
    known = {"meaning": "a thing", "where": "here", "flows": "all", "pods": "all"}
    return {"kind": kind, "ignored": False, **known, **more}


@pytest.mark.parametrize(
    ("told_by_agent", "count"),
    [
        (mechanism("limit"), 1),
        (mechanism("limit", ignored=True), 0),
        (mechanism("shaper"), 0),
    ],
)
def test_mechanisms(told_by_agent, count):
    """What the agent found is told once: devices have checks of their own."""
    status = WELL.agent.status | {"mechanisms": [told_by_agent]}
    assert [check for check, *_ in told("agent", status=status)] == ["mechanisms"] * count


@pytest.mark.parametrize(
    ("change", "told_by", "wanted"),
    [
        ({}, "both", ("ok", "/opt/cni/bin/vxlane is there")),
        ({"is_there": False}, "both", ("fail", "/opt/cni/bin/vxlane can't be run")),
        ({"is_called": False}, "both", ("warn", "no list in /etc/cni/net.d names it any more")),
        ({"is_called": False}, "plugin", ("fail", "the agent hears nothing else")),
        ({"is_called": False, "is_installed": False}, "both", ("ok", "in the runtime's cache")),
        ({"is_called": False, "is_installed": False}, "watch", ("ok", "in the runtime's cache")),
        ({"error": "x is not TOML"}, "both", ("warn", "x is not TOML")),
    ],
)
def test_who_tells_of_pods(change, told_by, wanted):
    """A plugin that is named must be there, and one that is not must not be needed."""
    status = {**WELL.agent.status, "pods_told_by": told_by}
    facts = replace(
        WELL, plugin=replace(WELL.plugin, **change), agent=replace(WELL.agent, status=status)
    )
    [found] = [each for each in findings(facts) if each.check == "cni-plugin"]
    level, says = wanted
    assert found.level is Level[level.upper()]
    assert says in found.says
