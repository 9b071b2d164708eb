# SPDX-License-Identifier: Apache-2.0
"""What is found in rules of nft, and which pods it concerns."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from reading import VIEW, found, kinds, sh

from vxlane.mechanisms.concern import Judged, judged
from vxlane.mechanisms.kinds import Kind

ALL = "all"
NFT = {
    "ip forward limit rate 10/second accept": "limit",
    "ip forward ct count over 5 drop": "limit",
    "ip forward quota over 1000 bytes drop": "quota",
    "ip forward ct bytes > 1000 drop": "connbytes",
    "ip forward ct original packets > 10 drop": "connbytes",
    "ip forward ct avgpkt > 1000 drop": "connbytes",
    "ip forward ct expiration > 1h drop": "connbytes",
    "ip forward ct status assured drop": "connbytes",
    "ip forward ct status & (assured | dnat) == assured drop": "connbytes",
    "ip forward ct status != confirmed drop": "connbytes",
    "ip forward ct status { seen-reply, assured } drop": "connbytes",
    "ip forward ct status vmap { assured : drop }": "connbytes",
    "ip forward ct status . ip saddr { assured . 10.42.1.5 } drop": "connbytes",
    "ip forward ct status . ip saddr @entries drop": "connbytes",
    "inet forward ct status assured accept": "connbytes",
    "ip forward numgen random mod 2 0 drop": "statistic",
    "ip forward meta random < 1000 drop": "statistic",
    "ip forward @th,160,32 0x61626364 drop": "payload",
    "ip forward @th,104,8 1 drop": "payload",
    "ip forward meta l4proto udp @th,104,8 1 drop": "payload",
    "ip forward ip protocol icmp @th,104,8 1 drop": "payload",
    "ip forward meta l4proto { tcp, udp } @th,104,8 1 drop": "payload",
    "bridge forward ip protocol udp @th,104,8 1 drop": "payload",
    "ip forward meta length > 1000 drop": "length",
    "ip forward ip length > 1000 drop": "length",
    "ip forward ip dscp 10 drop": "header",
    "ip forward ip ttl < 10 drop": "header",
    "ip forward ip frag-off & 0x4000 == 0 drop": "header",
    "ip forward ip frag-off != 0 drop": "header",
    "ip forward ip frag-off . ip saddr { 0x4000 . 10.42.1.5 } drop": "header",
    "ip forward ip frag-off vmap { 0x4000 : drop }": "header",
    "ip forward tcp option timestamp exists drop": "header",
    "ip forward tcp flags fin drop": "header",
    "ip forward tcp flags & (fin | syn | rst | ack) == fin | ack drop": "header",
    "ip forward tcp flags vmap { fin | ack : drop }": "header",
    "ip forward tcp flags . tcp dport { fin | ack . 80 } drop": "header",
    "ip forward tcp flags @bits drop": "header",
    "ip forward tcp dport . tcp flags @pairs drop": "header",
    "ip forward oifname . tcp flags @exits drop": "header",
    "ip forward tcp flags . meta mark @marked drop": "header",
    "ip forward meta mark . tcp flags @flagged drop": "header",
    "ip forward tcp flags . ct mark { fin | ack . 1-4 } drop": "header",
    "ip forward tcp flags . meta iif { fin | ack . 1-4 } drop": "header",
    "ip forward tcp flags . rt classid { fin | ack . 1-4 } drop": "header",
    "ip forward tcp flags . rt classid @realms drop": "header",
    "ip forward jhash tcp flags . ip saddr mod 2 0 drop": "header",
    "ip forward tcp flags . meta mark vmap { fin | ack . 1-4 : drop }": "header",
    "ip forward meta priority 0:6 drop": "header",
    "ip forward meta priority != 0:0 drop": "header",
    "ip forward meta priority { 0:2, 0:6 } drop": "header",
    "ip forward meta priority . ip saddr { 0:6 . 10.42.1.5 } drop": "header",
    "ip forward meta priority vmap { 0:6 : drop }": "header",
    "inet forward meta priority 0:6 drop": "header",
    "ip forward icmp checksum 5 drop": "header",
    "ip forward icmp checksum 5-9 drop": "header",
    "ip forward icmp checksum { 5, 6 } drop": "header",
    "ip forward icmp type echo-request icmp code 0 icmp checksum 5 drop": "header",
    "ip forward ip protocol icmp @th,24,8 5 drop": "header",
    "ip forward ip protocol { icmp, tcp } th dport 5 drop": "header",
    "ip forward ip protocol != tcp th dport 5 drop": "header",
    "inet forward icmp checksum 5 drop": "header",
    "bridge forward icmp checksum 5 drop": "header",
    "ip prerouting meta pkttype multicast drop": "header",
    "ip prerouting meta pkttype { broadcast, multicast } drop": "header",
    "ip prerouting iif . meta pkttype { lo . multicast } drop": "header",
    "netdev ingress meta pkttype multicast drop": "header",
    "ip forward meta hour 10 drop": "time",
    "ip forward add @seen { ip saddr }": "set",
    "ip forward update @each { ip saddr limit rate 10/second } accept": "set",
    "ip forward ip saddr @slowed drop": "limit",
    "ip forward ip saddr != @slowed accept": "limit",
    "ip forward ip saddr @all-slowed drop": "limit",
    "ip forward ip saddr @slowed-for-now drop": "limit",
    "ip forward ip saddr @few drop": "set",
    "ip forward ip saddr . tcp dport @slowed-ports drop": "limit",
    "ip forward meta mark set ip saddr map @slowed-marks": "limit",
    "ip forward ip saddr @slow-itself drop": "limit",
    "ip forward ip saddr { 10.42.1.5 limit rate over 1/second, 10.42.1.6 } drop": "limit",
    "ip forward ip saddr { 10.42.1.5 counter limit rate over 1/second, 10.42.1.6 } drop": "limit",
    "ip forward tcp dport { 80 limit rate over 1/second, 90-99 } drop": "limit",
    "bridge forward ip saddr { 10.42.1.5 limit rate over 1/second, 10.42.1.6 } drop": "limit",
    "ip forward ip saddr @seen drop": "set",
    "ip forward ip saddr @seen-counted drop": "set",
    "ip forward ip saddr @slowed counter": "set",
    "ip forward ip dscp set 10": "rewrite",
    "ip forward ip ttl set 10": "rewrite",
    "ip forward meta mark set 1": "mark",
    "ip forward meta priority set 1:1": "mark",
    "ip forward ct mark set 1": "mark",
    "ip forward meta mark set ct mark": "mark",
    "ip forward log": "log",
    "ip forward meta nftrace set 1": "log",
    "ip forward dup to 10.0.0.1": "copy",
    "ip forward counter name named": "account",
    "ip forward limit name slow accept": "limit",
    "ip forward quota name much drop": "quota",
    "ip forward limit name ip saddr map { 10.42.1.5 : slow } drop": "limit",
    "ip forward limit name ip saddr map @slow-pods drop": "limit",
    "ip forward meta mark set ip saddr map { 10.42.1.5 : 1, 10.43.1.6 : 2 }": "mark",
    "ip prerouting ct helper set by-name": "helper",
    "ip prerouting ct helper set tcp dport map { 21 : by-name }": "helper",
    "ip prerouting ct timeout set short": "timeout",
    "ip prerouting tcp dport 80 notrack": "notrack",
    "ip prerouting ct zone set 7": "zone",
    "ip prerouting meta l4proto tcp tproxy to :1234": "tproxy",
    "ip forward tcp flags syn synproxy mss 1460 wscale 7": "synproxy",
    "ip forward ip saddr 10.42.0.0/17 limit rate 1/second drop": "limit",
    "ip forward ip saddr . ip daddr { 10.42.1.5 . 10.42.2.5 } log": "log",
    "ip forward tcp dport { 80, 443 } log": "log",
    "ip forward tcp dport vmap { 80 : jump deep, 443 : accept }": "log",
    "ip forward iifname @wild log": "log",
    'ip forward iifname { "cni*", "virbr0" } log': "log",
    'ip forward iifname vmap { "cni*" : jump deep, "virbr0" : accept }': "log",
    "ip forward ip saddr { 0.0.0.0/1, 128.0.0.0/1 } log": "log",
    "ip forward ip saddr vmap { 0.0.0.0/0 : jump deep }": "log",
    "ip forward ip saddr @everybody log": "log",
    "ip forward ct state vmap { new : accept, * : jump deep }": "log",
    'ip forward iifname vmap { "docker0" : accept, * : jump deep }': "log",
    "ip forward tcp flags vmap { syn : accept, * : drop }": "header",
    "bridge forward limit rate 10/second accept": "limit",
    "bridge prerouting iifname veth1 ether saddr != 02:00:00:00:00:01 drop": "header",
    "netdev ingress limit rate 10/second accept": "limit",
    "netdev egress limit rate 10/second accept": "limit",
    "netdev ingress fwd to lo": "copy",
    "netdev nic udp dport 8472 limit rate 10/second accept": "limit",
    "netdev pod limit rate 10/second accept": "limit",
    "inet nic ct state invalid log": "log",
    "inet nic ct state != new log": "log",
}
NFT_CAN_NOT_BE_MET = (
    "ip forward tcp flags syn limit rate 1/second log",
    "ip forward tcp flags & (fin | syn | rst | ack) == syn log",
    "ip forward tcp flags & (fin | syn) == fin | syn drop",
    "ip forward meta l4proto tcp @th,104,8 & 2 == 2 log",
    "ip forward tcp flags syn tcp option maxseg size set rt mtu",
    "ip forward meta pkttype multicast drop",
    "ip prerouting meta pkttype { broadcast, other } drop",
    "bridge prerouting meta pkttype multicast drop",
    "netdev nic meta pkttype multicast drop",
    "ip forward ct state new,invalid log",
    "ip forward ct state { new, untracked } log",
    "ip forward ct status dnat accept",
    "ip forward ct status & (snat | dnat) != 0 drop",
    "ip forward ct state new ct status assured drop",
    "ip forward ct mark 7 drop",
    "ip forward ct direction reply ct id 7 drop",
    "ip forward ct state != established log",
    "ip forward ct state vmap { new : jump deep, established : continue }",
    "ip forward ct state vmap { established : accept, * : jump deep }",
    "ip forward ip saddr vmap { 10.42.0.0/16 : accept, * : jump deep }",
    "inet forward meta nfproto ipv6 log",
    "ip forward meta l4proto sctp log",
    "ip forward ip daddr 10.43.0.0/16 log",
    "ip forward ip saddr 10.43.0.5 ip daddr 10.42.0.5 log",
    "ip forward ip daddr { 10.43.0.0/16, 10.44.0.7 } log",
    "ip forward ip frag-off & 0x1fff != 0 log",
    "ip forward ip frag-off & 0x3fff != 0 drop",
    "ip forward ip option lsrr exists drop",
    "ip forward ip option rr length > 3 drop",
    "ip forward iifname { docker0, virbr0 } log",
    'ip forward iifname { "docker*", "virbr0" } log',
    'ip forward iifname vmap { "docker*" : jump deep, "virbr0" : jump deep }',
    "ip forward iif lo log",
    "ip forward fib daddr type local log",
    "ip forward ip daddr . meta l4proto . th dport vmap @verdicts",
    "ip forward icmp type echo-request icmp code 0 accept",
    "ip forward meta l4proto { tcp, udp } th dport 53 accept",
    "ip forward ip protocol != icmp th dport 53 drop",
    "ip forward meta l4proto . th dport { tcp . 53, udp . 53 } accept",
    "ip forward th sport 53 th dport 53 accept",
    "ip forward meta mark set ip saddr map { 10.43.1.5 : 1, 10.43.1.6 : 2 }",
    "ip forward counter name ip saddr map { 10.43.1.5 : named }",
    "ip forward limit name ip daddr map { 10.43.0.0/16 : slow } drop",
    "ip forward ip saddr @counted accept",
    "ip forward ip saddr { 10.42.1.5 counter, 10.42.1.6 counter } accept",
    "ip forward ip saddr { 10.43.1.5 counter, 10.43.1.6 counter } drop",
    "ip forward ct state new ip saddr @slowed drop",
    "ip forward ip daddr 10.43.0.0/16 ip saddr @seen drop",
    "ip forward ct state new update @each { ip saddr limit rate 10/second } accept",
    "ip other ip saddr @slowed drop",
    "ip forward counter accept",
    "ip forward tcp dport . meta mark { 80 . 1-4 } drop",
    "ip forward tcp flags syn meta mark 1-4 log",
    "ip forward tcp flags & (syn | ack) == ack meta mark 1-4 accept",
    "ip forward tcp flags & (syn | ack) == ack rt classid 1-4 accept",
    "ip forward jhash ip saddr . tcp sport mod 2 0 drop",
    "ip forward symhash mod 2 0 drop",
    "ip forward meta mark set meta mark & 0xffff0fff",
    "ip output udp dport 53 log",
    "ip other log",
    "bridge forward ether type arp limit rate 1/second log",
    "bridge forward ip daddr 10.42.1.5 drop",
    "netdev nic tcp dport 22 limit rate 10/second accept",
)
TABLES = """
add table ip t
add chain ip t forward { type filter hook forward priority 0; }
add chain ip t prerouting { type filter hook prerouting priority -300; }
add chain ip t output { type filter hook output priority 0; }
add chain ip t other
add chain ip t deep
add rule ip t deep log
add set ip t seen { type ipv4_addr; size 65535; flags dynamic; }
add set ip t each { type ipv4_addr; size 65535; flags dynamic; }
add set ip t wild { type ifname; flags interval; elements = { "docker*" }; }
add set ip t everybody { type ipv4_addr; flags interval, constant; elements = { 0.0.0.0/0 }; }
add set ip t bits { type tcp_flag; }
add set ip t entries { typeof ct status . ip saddr; }
add set ip t pairs { type inet_service . tcp_flag; }
add set ip t exits { type ifname . tcp_flag; }
add set ip t marked { type tcp_flag . mark; flags interval; }
add set ip t flagged { type mark . tcp_flag; flags interval; }
add set ip t realms { type tcp_flag . realm; }
add set ip t slowed { type ipv4_addr; size 99; flags dynamic; }
add element ip t slowed { 10.42.1.5 limit rate over 1/second, 10.42.1.6 }
add set ip t all-slowed { type ipv4_addr; size 99; flags dynamic; }
add element ip t all-slowed { * limit rate over 1/second }
add set ip t slowed-for-now { type ipv4_addr; size 99; flags dynamic, timeout; }
add element ip t slowed-for-now { 10.42.1.5 limit rate over 1/second timeout 1h }
add set ip t few { type ipv4_addr; size 99; flags dynamic; }
add element ip t few { 10.42.1.5 ct count over 9 }
add set ip t slowed-ports { type ipv4_addr . inet_service; size 99; flags dynamic; }
add element ip t slowed-ports { 10.42.1.5 . 80 limit rate over 1/second }
add map ip t slowed-marks { type ipv4_addr : mark; size 99; flags dynamic; }
add element ip t slowed-marks { 10.42.1.5 limit rate over 1/second : 7 }
add set ip t slow-itself { type ipv4_addr; limit rate over 1/second; }
add set ip t seen-counted { type ipv4_addr; size 99; flags dynamic; counter; }
add set ip t counted { type ipv4_addr; counter; }
add map ip t verdicts { type ipv4_addr . inet_proto . inet_service : verdict; }
add counter ip t named
add limit ip t slow { rate 10/second; }
add quota ip t much { over 1000 bytes; }
add map ip t slow-pods { type ipv4_addr : limit; }
add element ip t slow-pods { 10.42.1.5 : slow }
add ct helper ip t by-name { type "ftp" protocol tcp; }
add ct timeout ip t short { protocol tcp; policy = { established : 9 }; }
add table inet t
add chain inet t forward { type filter hook forward priority 0; }
add chain inet t nic { type filter hook ingress device eth0 priority 0; }
add table bridge t
add chain bridge t forward { type filter hook forward priority 0; }
add chain bridge t prerouting { type filter hook prerouting priority -300; }
add table netdev t
add chain netdev t ingress { type filter hook ingress device flannel.1 priority 0; }
add chain netdev t egress { type filter hook egress device cni0 priority 0; }
add chain netdev t nic { type filter hook ingress device eth0 priority 0; }
add chain netdev t pod { type filter hook ingress device veth5 priority 0; }
"""


@pytest.fixture
def tables(netns):
    """The chains that the rules of NFT go to."""
    assert netns
    for one, other in (("flannel.1", "cni0"), ("eth0", "veth5")):
        sh("ip", "link", "add", one, "type", "veth", "peer", "name", other)
    sh("nft", "-f", "-", stdin=TABLES)


def put(rule):
    """Make `rule` ("family chain what") the only one of its chain."""
    family, chain, what = rule.split(maxsplit=2)
    script = f"flush chain {family} t {chain}\nadd rule {family} t {chain} {what}\n"
    sh("nft", "-f", "-", stdin=script)
    return f"flush chain {family} t {chain}"


def test_statements_of_nft_are_found(tables):
    """Each statement of nft that acts on packets of pods has its kind."""
    assert tables is None
    seen = {}
    for rule in NFT:
        undo = put(rule)
        seen[rule] = kinds()
        sh("nft", undo)
    assert {rule: seen[rule] for rule, kind in NFT.items() if kind not in seen[rule]} == {}
    assert kinds() == set()


def test_statements_that_can_not_be_met_are_none(tables):
    """Rules of nft that no packet of a bypassed flow fits do not matter."""
    assert tables is None
    seen = {}
    for rule in NFT_CAN_NOT_BE_MET:
        undo = put(rule)
        seen[rule] = kinds()
        sh("nft", undo)
    assert {rule for rule, found in seen.items() if found} == set()


PODS = {"veth5": (IPv4Address("10.42.1.5"),), "veth6": (IPv4Address("10.42.1.6"),)}
CONCERN = {
    "ip forward ip saddr 10.42.1.5 limit rate 1/second drop": {"veth5"},
    "ip forward ip daddr 10.42.1.6 limit rate 1/second drop": {"veth6"},
    "ip forward ip daddr { 10.42.1.5, 10.42.1.6 } limit rate 1/second drop": {"veth5", "veth6"},
    "ip forward ip saddr 10.42.2.9 ip daddr 10.42.1.6 limit rate 1/second drop": {"veth6"},
    "ip forward ip saddr 10.42.2.9 limit rate 1/second drop": ALL,
    "ip forward ip saddr != 10.42.1.5 limit rate 1/second drop": ALL,
    "ip forward ip daddr 10.42.1.9 limit rate 1/second drop": set(),
    "ip forward ip saddr 10.42.1.5 jump deep": {"veth5"},
    "ip forward limit name ip saddr map { 10.42.1.5 : slow } drop": {"veth5"},
    "ip forward ip saddr vmap { 10.42.1.5 : jump deep, 10.42.1.6 : accept }": {"veth5"},
    "bridge prerouting iifname veth5 ether saddr != 02:00:00:00:00:01 drop": {"veth5"},
    "bridge prerouting iifname { veth5, veth6 } limit rate 1/second drop": {"veth5", "veth6"},
    "bridge prerouting limit rate 1/second drop": ALL,
    "netdev pod limit rate 1/second drop": {"veth5"},
    "netdev ingress limit rate 1/second drop": ALL,
}


def test_what_names_a_pod_concerns_it_alone(tables):
    """A rule about a local pod's address or port concerns this pod, any other rule all pods."""
    assert tables is None
    seen = {}
    for rule in CONCERN:
        undo = put(rule)
        outcome = judged(found(), PODS, VIEW.local, frozenset())
        seen[rule] = ALL if outcome.all else {*outcome.ports}
        sh("nft", undo)
    assert seen == CONCERN


def test_a_kind_that_is_ignored_concerns_no_pod(tables):
    """What --ignore-mechanism names is found, and is no reason to leave packets alone."""
    assert tables is None
    put("ip forward limit rate 1/second drop")
    assert judged(found(), PODS, VIEW.local, {Kind.LIMIT}) == Judged()
    put("ip forward limit rate 1/second log")
    assert judged(found(), PODS, VIEW.local, {Kind.LIMIT}).all
