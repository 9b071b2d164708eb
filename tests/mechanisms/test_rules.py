# SPDX-License-Identifier: Apache-2.0
"""What is found in real rules, written by the real tools and read back from the kernel."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from reading import found, kinds, may_drop, sh

RULESETS = Path(__file__).parent / "rulesets"
TOOLS = ("iptables-nft", "iptables-legacy")

MATTER = {
    "-A FORWARD -m limit --limit 10/s -j ACCEPT": "limit",
    "-A FORWARD -m hashlimit --hashlimit-upto 10/s --hashlimit-name x -j ACCEPT": "limit",
    "-A FORWARD -p tcp -m connlimit --connlimit-above 5 -j DROP": "limit",
    "-A FORWARD -m connbytes --connbytes 9 --connbytes-dir both --connbytes-mode bytes": (
        "connbytes"
    ),
    "-A FORWARD -m conntrack --ctstatus ASSURED -j DROP": "connbytes",
    "-A FORWARD -m conntrack ! --ctstatus SEEN_REPLY,EXPECTED -j DROP": "connbytes",
    "-A FORWARD -m conntrack --ctexpire 1:60 -j DROP": "connbytes",
    "-A FORWARD -m conntrack --ctstate ESTABLISHED --ctstatus ASSURED -j DROP": "connbytes",
    "-A FORWARD -m conntrack --ctstate ESTABLISHED --ctdir REPLY -j LOG": "log",
    "-A FORWARD -m conntrack --ctstate NEW,DNAT -j LOG": "log",
    "-A FORWARD -m quota --quota 1000 -j ACCEPT": "quota",
    "-A FORWARD -m statistic --mode random --probability 0.5 -j DROP": "statistic",
    "-A FORWARD -m cpu --cpu 0 -j DROP": "statistic",
    "-A FORWARD -m string --algo bm --string secret -j DROP": "payload",
    "-A FORWARD -m u32 --u32 6&0xFF=1 -j DROP": "payload",
    "-A FORWARD -m bpf --bytecode '4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0' -j DROP": "payload",
    "-A FORWARD -m length --length 1000:1500 -j DROP": "length",
    "-A FORWARD -m time --timestart 10:00 --timestop 11:00 -j DROP": "time",
    "-A FORWARD -m recent --name x --set": "set",
    "-A FORWARD -m mac --mac-source 02:00:00:00:00:01 -j DROP": "header",
    "-A FORWARD -m dscp --dscp 10 -j DROP": "header",
    "-A FORWARD -m tos --tos 0x10 -j DROP": "header",
    "-A FORWARD -p tcp -m ecn --ecn-tcp-cwr -j DROP": "header",
    "-A FORWARD -p tcp -m tcpmss --mss 1:500 -j DROP": "header",
    "-A FORWARD -p tcp --tcp-option 8 -j DROP": "header",
    "-A FORWARD -m ttl --ttl-lt 10 -j DROP": "header",
    "-A FORWARD -p tcp --tcp-flags SYN NONE -j DROP": "header",
    "-A FORWARD -p tcp --tcp-flags PSH PSH -j DROP": "header",
    "-A FORWARD -p tcp --tcp-flags FIN FIN -j DROP": "header",
    "-t raw -A PREROUTING -m pkttype --pkt-type multicast -j DROP": "header",
    "-t raw -A PREROUTING -m pkttype --pkt-type unicast -j ACCEPT": "header",
    "-t raw -A PREROUTING -m physdev --physdev-in veth1 -j DROP": "header",
    "-t raw -A PREROUTING -m physdev ! --physdev-is-in -j DROP": "header",
    "-t mangle -A FORWARD -j DSCP --set-dscp 10": "rewrite",
    "-t mangle -A POSTROUTING -j TOS --set-tos 16": "rewrite",
    "-t mangle -A PREROUTING -j TTL --ttl-inc 1": "rewrite",
    "-t mangle -A FORWARD -j MARK --set-mark 1": "mark",
    "-t mangle -A FORWARD -j CLASSIFY --set-class 1:1": "mark",
    "-t mangle -A FORWARD -j HMARK --hmark-tuple src --hmark-mod 9 --hmark-rnd 1": "mark",
    "-t mangle -A PREROUTING -j CONNMARK --restore-mark": "mark",
    "-t mangle -A FORWARD -m connlabel --label 1 --set": "mark",
    "-A FORWARD -j NFQUEUE --queue-num 1": "queue",
    "-A FORWARD -j LOG": "log",
    "-A FORWARD -j NFLOG --nflog-group 1": "log",
    "-A FORWARD -j AUDIT --type accept": "log",
    "-t raw -A PREROUTING -j TRACE": "log",
    "-t mangle -A FORWARD -j TEE --gateway 10.0.0.1": "copy",
    "-A FORWARD -j IDLETIMER --timeout 9 --label x": "account",
    "-A FORWARD -j RATEEST --rateest-name x --rateest-interval 250ms --rateest-ewmalog 500ms": (
        "account"
    ),
    "-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp": "helper",
    "-t raw -A PREROUTING -p tcp --dport 80 -j CT --notrack": "notrack",
    "-t raw -A PREROUTING -j CT --zone 7": "zone",
    "-t mangle -A PREROUTING -p tcp -j TPROXY --on-port 1234": "tproxy",
    "-A FORWARD -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY": "synproxy",
    "-A INPUT -p udp --dport 8472 -m limit --limit 10/s -j ACCEPT": "limit",
    "-A OUTPUT -d 192.168.7.2 -m limit --limit 10/s -j ACCEPT": "limit",
    "-A FORWARD -p tcp -m multiport --dports 80,443 -m limit --limit 1/s -j ACCEPT": "limit",
    "-A FORWARD ! -i docker0 -m limit --limit 1/s -j ACCEPT": "limit",
    "-A FORWARD -m mark --mark 1 -m limit --limit 1/s -j ACCEPT": "limit",
    "-A FORWARD -i cni+ -m limit --limit 1/s -j ACCEPT": "limit",
}
CAN_NOT_BE_MET = (
    "-A FORWARD -p tcp --syn -m limit --limit 1/s -j LOG",
    "-A FORWARD -p tcp ! --syn -m conntrack --ctstate NEW -j DROP",
    "-A FORWARD -p tcp --tcp-flags ALL NONE -j DROP",
    "-A FORWARD -p tcp --tcp-flags ALL ALL -j DROP",
    "-A FORWARD -p tcp --tcp-flags SYN,FIN SYN,FIN -j DROP",
    "-A FORWARD -p tcp --tcp-flags ALL FIN,PSH,URG -j DROP",
    "-A FORWARD -p tcp --tcp-flags FIN,RST FIN,RST -j DROP",
    "-A FORWARD -p tcp --tcp-flags ACK,FIN FIN -j DROP",
    "-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j LOG",
    "-A FORWARD -p tcp ! --tcp-flags ACK ACK -j LOG",
    "-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    "-A FORWARD -i docker0 -m limit --limit 10/s -j ACCEPT",
    "-A FORWARD -i veth+ -m limit --limit 10/s -j ACCEPT",
    "-A FORWARD -m conntrack --ctstate INVALID -j LOG",
    "-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j LOG",
    "-A FORWARD -m state --state NEW -j LOG",
    "-A FORWARD -m conntrack --ctstatus EXPECTED -j ACCEPT",
    "-A FORWARD -m conntrack --ctdir REPLY -j DROP",
    "-A FORWARD -m conntrack --ctstate NEW --ctdir ORIGINAL -j LOG",
    "-A FORWARD -m conntrack --ctstate NEW --ctorigdst 10.43.0.1 --ctorigdstport 80 -j LOG",
    "-A FORWARD -m conntrack --ctstate NEW --ctstatus ASSURED -j DROP",
    "-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED --ctproto 6 -j LOG",
    "-A FORWARD -m connlabel --label 1 -j DROP",
    "-A FORWARD -m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 7",
    "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
    "-A FORWARD -p sctp -j LOG",
    "-A FORWARD -d 10.43.0.0/16 -j LOG",
    "-A FORWARD ! -s 10.42.0.0/16 -j LOG",
    "-A FORWARD -f -j LOG",
    "-A FORWARD -m addrtype --dst-type LOCAL -j LOG",
    "-A INPUT -p udp --dport 53 -j LOG",
    "-A INPUT -p tcp -m limit --limit 1/s -j ACCEPT",
    "-A INPUT -s 192.168.8.0/24 -j LOG",
    "-A INPUT -m pkttype --pkt-type broadcast -j DROP",
    "-A FORWARD -m pkttype --pkt-type multicast -j DROP",
    "-A FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
    "-t mangle -A PREROUTING -m pkttype --pkt-type multicast -j DROP",
    "-t raw -A PREROUTING -m pkttype --pkt-type broadcast -j DROP",
    "-A OUTPUT -o lo -j LOG",
    "-t nat -A PREROUTING -m statistic --mode random --probability 0.5 -j ACCEPT",
    "-t mangle -A FORWARD -j MARK --and-mark 0xfffffff0",
    "-A FORWARD -p tcp --dport 80 -j ACCEPT",
)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_acts_on_every_packet_is_found(netns, tool):
    """Each rule of iptables-nft and iptables-legacy that acts on packets of pods has its kind."""
    assert netns
    seen = {}
    for rule in MATTER:
        sh(tool, *shlex.split(rule))
        seen[rule] = kinds()
        sh(tool, *shlex.split(rule.replace("-A ", "-D ", 1)))
    assert seen == {rule: {kind} for rule, kind in MATTER.items()}
    assert kinds() == set()


QUEUES = (
    "FORWARD -j QUEUE",
    "FORWARD -p tcp --dport 80 -s 10.42.1.5 -j QUEUE",
    "INPUT -p udp --dport 8472 -j QUEUE",
    "PREROUTING -t raw -i cni0 -j QUEUE",
    "POSTROUTING -t mangle -d 10.42.0.0/16 -j QUEUE",
    "FORWARD -t security -m conntrack --ctstate ESTABLISHED -j QUEUE",
)
QUEUES_NOT_MET = (
    "FORWARD -p tcp --syn -j QUEUE",
    "FORWARD -i docker0 -j QUEUE",
    "FORWARD -m conntrack --ctstate NEW -j QUEUE",
)


@pytest.mark.parametrize("rule", [*QUEUES, *QUEUES_NOT_MET])
def test_the_queue_of_iptables_legacy(netns, rule):
    """QUEUE is no target to iptables-legacy but a verdict. What it queues is not dropped."""
    assert netns
    sh("iptables-legacy", "-A", *shlex.split(rule))
    assert kinds() == ({"queue"} if rule in QUEUES else set())
    assert not may_drop()


def test_what_comes_behind_a_queue_of_some_is_met(netns):
    """What is not queued comes to the next rule."""
    assert netns
    for rule in ("-p tcp -j QUEUE", "-p udp -j LOG"):
        sh("iptables-legacy", "-A", "FORWARD", *shlex.split(rule))
    assert kinds() == {"queue", "log"}


COUNTED = (
    "FORWARD -m set --match-set s src --bytes-gt 1000000 -j DROP",
    "FORWARD -m set --match-set s src --bytes-lt 1 -j ACCEPT",
    "FORWARD -m set --match-set s dst --packets-gt 1000 -j DROP",
    "FORWARD -m set --match-set s src --bytes-eq 0 -j ACCEPT",
    "FORWARD -m set --match-set s src ! --bytes-eq 7 -j DROP",
    "FORWARD -m set --match-set s src ! --packets-eq 0 -j DROP",
    "FORWARD -m set ! --match-set s src --packets-lt 9 -j DROP",
    "FORWARD -m set --match-set s src ! --update-counters --packets-gt 9 -j DROP",
    "PREROUTING -t raw -p tcp -m set --match-set s src,dst --packets-gt 9 --bytes-gt 9 -j DROP",
    "POSTROUTING -t mangle -m set --match-set s dst --bytes-gt 4294967296 -j DROP",
)
NOT_COUNTED = (
    "FORWARD -m set --match-set s src -j DROP",
    "FORWARD -m set ! --match-set s dst -j ACCEPT",
    "FORWARD -m set --match-set s src ! --update-counters -j DROP",
    "FORWARD -m set --match-set s src ! --update-subcounters -j DROP",
    "FORWARD -m set --match-set s src --return-nomatch -j DROP",
    "FORWARD -p tcp --syn -m set --match-set s src --bytes-gt 9 -j DROP",
    "FORWARD -i docker0 -m set --match-set s src --bytes-gt 9 -j DROP",
)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("rule", [*COUNTED, *NOT_COUNTED])
def test_what_a_set_has_counted_is_a_quota(netns, tool, rule):
    """A set whose elements count packets and bytes is a quota where a rule asks how many."""
    assert netns
    sh("ipset", "create", "s", "hash:ip", "counters")
    sh(tool, "-A", *shlex.split(rule))
    assert kinds() == ({"quota"} if rule in COUNTED else set())


@pytest.mark.parametrize("tool", TOOLS)
def test_what_packets_of_pods_can_not_meet_is_none(netns, tool):
    """Rules for other states, devices, protocols or addresses, and for SYN, do not matter."""
    assert netns
    seen = {}
    for rule in CAN_NOT_BE_MET:
        sh(tool, *shlex.split(rule))
        seen[rule] = kinds()
    assert {rule for rule, kinds in seen.items() if kinds} == set()


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("chain", ["INPUT", "OUTPUT"])
def test_what_accepts_the_tunnel_as_new_hides_what_comes_after(netns, tool, chain):
    """Conntrack calls all packets of the tunnel NEW, except where a rule keeps them out of it."""
    assert netns
    raw = {"INPUT": "PREROUTING", "OUTPUT": "OUTPUT"}[chain]
    accept = f"{chain} -p udp --dport 8472 -m conntrack --ctstate NEW -j ACCEPT"
    for rule in (accept, f"{chain} -m limit --limit 5/min -j LOG"):
        sh(tool, "-A", *shlex.split(rule))
    assert kinds() == set()
    for port, expected in ((53, set()), (8472, {"limit", "log"})):
        notrack = f"{raw} -d 192.168.7.0/24 -p udp --dport {port} -j CT --notrack"
        sh(tool, "-t", "raw", "-A", *shlex.split(notrack))
        assert kinds() == expected
    sh(tool, "-D", *shlex.split(accept))
    sh(tool, "-t", "raw", "-F")
    assert kinds() == {"limit", "log"}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_accepts_hides_what_comes_after(netns, tool):
    """A rule that accepts all packets of pods, in a chain that is jumped to, ends the walk."""
    assert netns
    sh(tool, "-N", "ours")
    sh(tool, *shlex.split("-A FORWARD -j ours"))
    sh(tool, *shlex.split("-A FORWARD -m limit --limit 1/s -j ACCEPT"))
    assert kinds() == {"limit"}
    for accept in (
        "ours -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "ours -s 10.42.0.0/16 -j ACCEPT",
        "FORWARD -d 10.0.0.0/8 -j ACCEPT",
        "ours -p icmp -j RETURN",
    ):
        sh(tool, "-I", *shlex.split(accept))
        assert kinds() == ({"limit"} if "RETURN" in accept else set()), accept
        sh(tool, "-D", *shlex.split(accept))


@pytest.mark.parametrize("name", sorted(path.name for path in RULESETS.iterdir()))
def test_usual_rules_do_not_matter(netns, name):
    """What other programs write on every node is met by no packet of a bypassed flow."""
    assert netns
    rules = (RULESETS / name).read_text()
    tools = ["nft -f -"] if name.endswith(".nft") else [f"{tool}-restore" for tool in TOOLS]
    for tool in tools:
        sh(*tool.split(), stdin=rules)
        assert found() == (), tool
