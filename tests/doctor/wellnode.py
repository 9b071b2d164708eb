# SPDX-License-Identifier: Apache-2.0
"""The facts of a node with which all is well, and what is told when one of them is another."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from plaindevice import device

from vxlane.datapath.records import Settings
from vxlane.doctor.checks import settings
from vxlane.doctor.checks.all import findings
from vxlane.doctor.facts import (
    Agent,
    Conntrack,
    Expected,
    Facts,
    Kernel,
    Link,
    Links,
    Peers,
    Plugin,
    Rules,
    Tunnel,
)
from vxlane.doctor.findings import Level
from vxlane.host import sysctls
from vxlane.host.entries import FdbEntry, Neighbour, Route
from vxlane.host.nexthops import NextHop
from vxlane.host.offloads import Feature
from vxlane.probes.helpers import PROBES, Answer, Result

SECOND = 1_000_000_000
NOW = 100 * SECOND
OWN_MAC, MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
NODE, PEER = IPv4Address("192.168.77.11"), IPv4Address("192.168.77.12")
CIDR = IPv4Network("10.42.2.0/24")
GATEWAY = int(CIDR.network_address)
REACHABLE, FAILED = 0x02, 0x20


def link(*arguments, **options):
    """A device on the way."""
    return Link(device=device(*arguments, **options))


NIC = link(2, "eth0", mtu=1500)
VTEP = link(3, "flannel.1", "vxlan", mac=OWN_MAC)
BRIDGE = link(4, "cni0", "bridge")
VETH = link(5, "veth1", "veth")

WELL = Facts(
    kernel=Kernel(
        release="6.18.4",
        probes=tuple(Result(each.name, Answer.YES, "", "so", is_needed=True) for each in PROBES),
        has_compiled=False,
        has_bcc=True,
        headers="some",
    ),
    agent=Agent(
        state="/run/vxlane",
        pid=1234,
        mode="own",
        status={"mode": "own", "bypass": "on", "mechanisms": [], "failures": [], "problems": []},
        is_mounted=True,
        maps_error="",
        settings=Settings(NOW + 2 * SECOND, 30 * SECOND, 10 * SECOND, NODE, 3, OWN_MAC),
        now=NOW,
    ),
    sysctls={
        sysctls.BRIDGE_NETFILTER: "1",
        settings.FORWARDING: "1",
        settings.LIBERAL: "1",
        settings.IGNORE_RST: "1",
    },
    conntrack=Conntrack(count=10, most=1000),
    reverse_path_drops=0,
    links=Links(
        vtep=VTEP,
        nic=NIC,
        bridges=(BRIDGE,),
        veths=(VETH,),
        tunnels=(Tunnel(name="flannel.1", vni=1, port=8472),),
        features={"rx-gro": Feature(is_on=True, is_changeable=True)},
        pod_mtu=1450,
    ),
    rules=Rules(legacy={}),
    peers=Peers(
        vtep="flannel.1",
        port=8472,
        expected={CIDR: Expected(name="node2", cidr=CIDR, address=PEER, vtep_mac=MAC)},
        routes=(Route(GATEWAY, 24, GATEWAY, 3, 4),),
        neighbours={GATEWAY: Neighbour(GATEWAY, MAC, 3)},
        forwarding={MAC: FdbEntry(MAC, int(PEER), 3)},
        ways={PEER: NextHop(2, PEER)},
        states={(2, PEER): REACHABLE},
    ),
    plugin=Plugin(
        conf_dir="/etc/cni/net.d",
        program="/opt/cni/bin/vxlane",
        is_called=True,
        is_there=True,
        is_installed=True,
    ),
)


def told(area="", **changes):
    """What is not well when fields of one area of `WELL` are others: (check, level, fixes)."""
    facts = replace(WELL, **{area: replace(getattr(WELL, area), **changes)}) if area else WELL
    return complaints(facts)


def complaints(facts):
    """What is not well: (check, level, fixes)."""
    return [
        (finding.check, finding.level.label, finding.fix)
        for finding in findings(facts)
        if finding.level is not Level.OK
    ]
