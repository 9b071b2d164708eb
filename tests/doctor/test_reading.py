# SPDX-License-Identifier: Apache-2.0
"""What is read from the kernel of rules, sets, devices and settings."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from ipaddress import IPv4Address, IPv6Address

import pytest
from chamber import Chamber, ip

from vxlane.doctor.read import kernel, peers
from vxlane.doctor.read.links import LinkReader
from vxlane.doctor.read.plugin import plugin
from vxlane.doctor.read.programs import ProgramReader
from vxlane.doctor.read.rules import rules
from vxlane.host import entries, sysctls
from vxlane.host.devices import Devices
from vxlane.netlink.socket import NetlinkSocket


@pytest.fixture
def chamber(_machine):
    """A network namespace of the test's own."""
    opened = Chamber()
    yield opened
    opened.close()


def run(*commands):
    """Run commands of a shell."""
    for command in commands:
        subprocess.run(["sh", "-ec", command], check=True, capture_output=True)


def test_the_plugin_is_looked_for_where_commands_are_told(tmp_path, monkeypatch):
    """By the variables that `vxlane install` reads."""
    (tmp_path / "vxlane").touch(mode=0o755)
    listed = '{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "vxlane"}]}'
    (tmp_path / "10-flannel.conflist").write_text(listed, encoding="utf-8")
    for name in ("VXLANE_CNI_BIN_DIR", "VXLANE_CNI_CONF_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    found = plugin()
    assert (found.conf_dir, found.program) == (str(tmp_path), f"{tmp_path}/vxlane")
    assert (found.is_called, found.is_there) == (True, True)


def test_a_configuration_that_nobody_asks_is_not_read(tmp_path, monkeypatch):
    """Where both directories are told, the runtime's file may be damaged, as for `install`."""
    broken = tmp_path / "etc/containerd/config.toml"
    broken.parent.mkdir(parents=True)
    broken.write_text("[", encoding="utf-8")
    monkeypatch.setenv("VXLANE_HOST_ROOT", str(tmp_path))
    assert plugin().error
    for name in ("VXLANE_CNI_BIN_DIR", "VXLANE_CNI_CONF_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert not plugin().error


def test_routers_of_both_families_may_fail_to_answer(chamber):
    """A peer's next hop is an IPv6 address where its route says so."""
    for command in (
        "link add a0 type veth peer name a1",
        "link set a0 up",
        "neigh add 192.0.2.1 dev a0 nud failed",
        "neigh add fe80::1 dev a0 nud failed",
    ):
        chamber.run(ip, command)
    device = chamber.run(socket.if_nametoindex, "a0")
    with contextlib.closing(chamber.run(NetlinkSocket)) as netlink:
        states = peers.states_of(netlink)
    failed = {who for who, state in states.items() if state == 0x20}
    assert failed >= {(device, IPv4Address("192.0.2.1")), (device, IPv6Address("fe80::1"))}


def test_a_namespace_without_routes(chamber):
    """Where no device was ever up the kernel has no table of routes: there is no entry."""
    with contextlib.closing(chamber.run(NetlinkSocket)) as netlink:
        assert entries.read(netlink, 0) == {}


def test_a_namespace_without_rules(chamber):
    """Where no rule was ever made there is nothing, and no failure."""
    found = chamber.run(rules)
    assert (found.chains, found.invalid, found.legacy, found.sets) == (frozenset(), (), {}, ())
    assert (found.flowtables, found.error) == ((), "")


@pytest.mark.parametrize(
    ("commands", "chain"),
    [
        (
            ["iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP"],
            "nft ip filter FORWARD",
        ),
        (
            [
                "iptables -N KUBE-FORWARD",
                "iptables -A FORWARD -j KUBE-FORWARD",
                "iptables -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            ],
            "nft ip filter KUBE-FORWARD",
        ),
        (
            [
                "nft add table inet t",
                "nft 'add chain inet t f { type filter hook forward priority 0; }'",
                "nft add rule inet t f ct state invalid drop",
            ],
            "nft inet t f",
        ),
        (
            ["iptables-legacy -w -A FORWARD -m conntrack --ctstate INVALID -j DROP"],
            "iptables-legacy ip filter FORWARD",
        ),
    ],
)
def test_rules_that_drop_invalid(chamber, commands, chain):
    """Whoever wrote it, a rule that drops INVALID is found with its chain."""
    chamber.run(run, *commands)
    assert chamber.run(rules).invalid == (chain,)


@pytest.mark.parametrize(
    "rule",
    [
        "-m conntrack --ctstate INVALID -j ACCEPT",
        "-m conntrack --ctstate NEW -j DROP",
        "-m conntrack ! --ctstate RELATED,ESTABLISHED -p udp -j RETURN",
        "-s 192.0.2.1 -j DROP",
    ],
)
def test_other_rules_drop_nothing_invalid(chamber, rule):
    """A rule of another state, of the node's own packets, or that drops nothing, is none."""
    chamber.run(run, f"iptables -A FORWARD {rule}")
    chamber.run(run, "iptables -A INPUT -m conntrack --ctstate INVALID -j DROP")
    assert chamber.run(rules).invalid == ()


def test_sets_that_rules_use(chamber):
    """An ipset counts if a rule refers to it."""
    chamber.run(run, "ipset create used hash:ip", "ipset create idle hash:ip")
    assert chamber.run(rules).sets == ()
    chamber.run(run, "iptables -A FORWARD -m set --match-set used src -j DROP")
    assert chamber.run(rules).sets == ("used",)


def test_rules_of_legacy_are_counted(chamber):
    """Rules of chains that the kernel calls are counted by table, policies and nat left out."""
    chamber.run(
        run,
        "iptables-legacy -w -A FORWARD -s 192.0.2.1 -j DROP",
        "iptables-legacy -w -A INPUT -s 192.0.2.1 -j DROP",
        "iptables-legacy -w -t nat -A PREROUTING -j RETURN",
    )
    assert chamber.run(rules).legacy == {"filter": 2}


def test_chains_are_named(chamber):
    """Names of chains tell a policy engine."""
    chamber.run(run, "iptables -N cali-FORWARD")
    assert "cali-FORWARD" in chamber.run(rules).chains


def test_programs_of_others(chamber):
    """Filters, by name and place, are told; an empty qdisc and our own names are not."""

    def filters():
        netlink = NetlinkSocket()
        try:
            return ProgramReader(netlink).on(1)
        finally:
            netlink.close()

    chamber.run(run, "tc qdisc add dev lo clsact")
    assert chamber.run(filters) == ()
    bytecode = "bpf bytecode '1,6 0 0 4294967295,'"
    chamber.run(run, f"tc filter add dev lo egress pref 9 {bytecode}")
    (found,) = chamber.run(filters)
    assert (found.hook, found.priority, found.link) == ("egress", 9, 0)


def test_subnet_env_may_be_elsewhere(chamber, tmp_path, monkeypatch):
    """By flanneld's variable, as in a lab, where the machine's file is another network's."""

    def pod_mtu():
        with contextlib.closing(Devices()) as devices:
            return LinkReader(devices).links(None, ()).pod_mtu

    file = tmp_path / "subnet.env"
    file.write_text("FLANNEL_MTU=1234\n", encoding="ascii")
    monkeypatch.setenv("FLANNELD_SUBNET_FILE", str(file))
    assert chamber.run(pod_mtu) == 1234


def test_flannels_devices(chamber):
    """The VXLAN device, its NIC and the pods' bridge are found by what they are."""

    def links():
        devices = Devices()
        try:
            return LinkReader(devices).links(None, ())
        finally:
            devices.close()

    chamber.run(
        ip,
        "link add eth0 type veth peer name wire",
        "address add 192.0.2.1/24 dev eth0",
        "link add br9 type bridge",
        "link add cni0 type bridge",
        "address add 10.42.1.1/24 dev cni0",
        "link add veth1 type veth peer name pod",
        "link set veth1 master cni0",
        "link add flannel.7 type vxlan id 7 local 192.0.2.1 dstport 8472",
        "address add 10.42.1.0/32 dev flannel.7",
    )
    found = chamber.run(links)
    assert [found.vtep.name, found.nic.name] == ["flannel.7", "eth0"]
    assert [link.name for link in found.bridges] == ["cni0"]
    assert [link.name for link in found.veths] == ["veth1"]
    assert [(tunnel.vni, tunnel.port) for tunnel in found.tunnels] == [(7, 8472)]
    assert found.features


def test_what_the_reverse_path_filter_dropped(monkeypatch, tmp_path):
    """The number stands where its name does, in the line after the names."""
    netstat = tmp_path / "netstat"
    netstat.write_text("Tcp: A B\nTcp: 1 2\nIp: C IPReversePathFilter D\nIp: 3 7 4\n")
    monkeypatch.setattr(kernel, "_NETSTAT", netstat)
    assert kernel.reverse_path_drops() == 7


def test_settings_and_conntrack(chamber):
    """Settings are those of the namespace; what a kernel lacks is missing."""
    chamber.run(run, "sysctl -qw net.ipv4.conf.lo.rp_filter=1 net.ipv4.ip_forward=1")
    found = chamber.run(kernel.settings, ["lo", "no.such"])
    assert found["net/ipv4/conf/lo/rp_filter"] == found["net.ipv4.ip_forward"] == "1"
    assert "net/ipv4/conf/no.such/rp_filter" not in found
    table = chamber.run(kernel.conntrack)
    assert table.most == int(sysctls.read("net.netfilter.nf_conntrack_max"))
    assert table.count < table.most
    assert chamber.run(kernel.reverse_path_drops) == 0
