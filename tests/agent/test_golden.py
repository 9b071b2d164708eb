# SPDX-License-Identifier: Apache-2.0
"""A node in mode `own` is what flanneld v0.28 would have made of it, to the byte."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from agentnode import AgentNode, mac

MASQ = '-m comment --comment "flanneld masq" -j'
FORWARD = '-m comment --comment "flanneld forward" -j'


def test_the_device_is_flannels(running: AgentNode) -> None:
    """flannel.1 has flannel's VNI, port, local address, MTU and checksum, and learns nothing."""
    data = running.kernel_path()["link"]["linkinfo"]["info_data"]
    assert {
        key: data.get(key) for key in ("id", "local", "link", "port", "learning", "udp_csum")
    } == {
        "id": 1,
        "local": "192.168.77.1",
        "link": "eth0",
        "port": 8472,
        "learning": False,
        "udp_csum": True,
    }
    assert running.kernel_path()["link"]["mtu"] == 1450
    assert running.kernel_path()["link"]["address"] == mac(1)
    assert running.kernel_path()["addresses"][2] == "10.42.1.0/32"


def test_every_peer_has_its_three_entries(running: AgentNode) -> None:
    """A peer is one on-link route, one permanent neighbour and one permanent FDB entry."""
    path = running.kernel_path()
    assert path["routes"] == [
        "10.42.2.0/24 via 10.42.2.0 dev flannel.1 onlink ",
        "10.42.3.0/24 via 10.42.3.0 dev flannel.1 onlink ",
        "192.168.77.0/24 dev eth0 proto kernel scope link src 192.168.77.1 ",
    ]
    assert path["neighbours"] == [f"10.42.{n}.0 lladdr {mac(n)} PERMANENT " for n in (2, 3)]
    assert path["fdb"] == sorted(f"{mac(n)} dst 192.168.77.{n} self permanent" for n in (2, 3))


def test_the_rules_are_flannels_in_its_order(running: AgentNode) -> None:
    """Masquerade and forward rules are those of flannel v0.28, each in its place."""
    network, pods = "10.42.0.0/16", "10.42.1.0/24"
    assert running.kernel_path()["rules"] == [
        "*filter",
        f"-A FORWARD {FORWARD} FLANNEL-FWD",
        f"-A FLANNEL-FWD -s {network} {FORWARD} ACCEPT",
        f"-A FLANNEL-FWD -d {network} {FORWARD} ACCEPT",
        "*nat",
        f"-A POSTROUTING {MASQ} FLANNEL-POSTRTG",
        f"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {MASQ} RETURN",
        f"-A FLANNEL-POSTRTG -s {pods} -d {network} {MASQ} RETURN",
        f"-A FLANNEL-POSTRTG -s {network} -d {pods} {MASQ} RETURN",
        f"-A FLANNEL-POSTRTG ! -s {network} -d {pods} {MASQ} RETURN",
        f"-A FLANNEL-POSTRTG -s {network} ! -d 224.0.0.0/4 {MASQ} MASQUERADE --random-fully",
        f"-A FLANNEL-POSTRTG ! -s {network} -d {network} {MASQ} MASQUERADE --random-fully",
    ]


def test_subnet_env_is_flannels(running: AgentNode) -> None:
    """subnet.env holds flannel's keys in its order, readable by all."""
    assert running.subnet_file.read_text() == (
        "FLANNEL_NETWORK=10.42.0.0/16\n"
        "FLANNEL_SUBNET=10.42.1.1/24\n"
        "FLANNEL_MTU=1450\n"
        "FLANNEL_IPMASQ=true\n"
    )
    assert stat.S_IMODE(running.subnet_file.stat().st_mode) == 0o644


def test_the_sysctls_are_set(running: AgentNode) -> None:
    """Forwarding is on, and conntrack bears with windows and resets that it did not see."""
    names = "net.ipv4.ip_forward net.netfilter.nf_conntrack_tcp_be_liberal"
    more = "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst"
    assert running.sh(f"sysctl -n {names} {more}").split() == ["1", "1", "1"]


COMPILING = """
import runpy, sys
from pathlib import Path
from vxlane.datapath import precompiled
precompiled.FILE = Path("none")
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""
"""Runs a program of the environment as where no compiled programs have come with the package."""


def test_the_agent_fits_in_64_mb(node: AgentNode) -> None:
    """The compiler is not in the agent's memory: resident are less than 64 MB."""
    node.start(prefix=(sys.executable, "-c", COMPILING))
    assert "compile the programs" in node.log()
    status = Path(f"/proc/{node.status()['pid']}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    assert resident < 64 * 1024, f"{resident} kB"
