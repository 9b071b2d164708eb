# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicy as controllers write it: one pod that only some addresses may talk to.

KubeRouter as kube-router 2 (k3s's own) writes it: iptables, ipsets, a jump for what the bridge
switches, marks, and established connections accepted first. Nftables in the way of
kube-network-policies: every packet is judged again, in the family that sees both routed and
switched packets; Bridge does so where frames are switched.
"""

from __future__ import annotations


class KubeRouter:
    """An ingress policy of a pod, `allowed` in an ipset."""

    RULES = """\
*filter
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-{id} - [0:0]
:KUBE-NWPLCY-{id} - [0:0]
-I FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -m physdev --physdev-is-bridged \
-m comment --comment "rule to jump traffic destined to POD" -d {pod} -j KUBE-POD-FW-{id}
-A KUBE-ROUTER-FORWARD \
-m comment --comment "rule to jump traffic destined to POD" -d {pod} -j KUBE-POD-FW-{id}
-A KUBE-POD-FW-{id} -m comment --comment "rule for stateful firewall for pod" \
-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-{id} -m addrtype --src-type LOCAL -d {pod} -j ACCEPT
-A KUBE-POD-FW-{id} -m comment --comment "run through nw policy" -j KUBE-NWPLCY-{id}
-A KUBE-POD-FW-{id} -m mark ! --mark 0x10000/0x10000 -j REJECT
-A KUBE-POD-FW-{id} -j MARK --set-mark 0/0x10000
-A KUBE-NWPLCY-{id} -m set --match-set KUBE-SRC-{id} src -m set --match-set KUBE-DST-{id} dst \
-j MARK --set-xmark 0x10000/0x10000
-A KUBE-NWPLCY-{id} -m set --match-set KUBE-SRC-{id} src -m set --match-set KUBE-DST-{id} dst \
-m mark --mark 0x10000/0x10000 -j RETURN
COMMIT
"""
    SETS = """\
create KUBE-SRC-{id} hash:ip
create KUBE-DST-{id} hash:ip
add KUBE-SRC-{id} {allowed}
add KUBE-DST-{id} {pod}
"""

    def __init__(self, lab, node):
        self._run = lambda *argv, **more: lab.exec(node, *argv, **more).stdout
        self._before = ""

    def install(self, pod, allowed):
        """Let only `allowed` open connections to `pod`."""
        self._before = self._run("iptables-save")
        names = {"id": "TNZVOUOK6FOGTYNM", "pod": pod, "allowed": allowed}
        self._run("ipset", "restore", stdin=self.SETS.format(**names))
        self._run("iptables-restore", "--noflush", "--wait", stdin=self.RULES.format(**names))

    def remove(self):
        """Leave the tables as they were."""
        self._run("iptables-restore", "--wait", stdin=self._before)
        self._run("ipset", "destroy")


class Nftables:
    """Each packet to the pod must be of an allowed pair, or answer the pod."""

    FAMILY, HOOK, STATE = "inet", "postrouting priority 95", "ct direction original"
    RULES = """\
table {family} kube-network-policies {{
	set podips-v4 {{ type ipv4_addr; elements = {{ {pod} }}; }}
	set allowed {{ type ipv4_addr . ipv4_addr; elements = {{ {allowed} . {pod} }}; }}
	chain judge {{
		type filter hook {hook}; policy accept;
		ip daddr @podips-v4 {state} ip saddr . ip daddr != @allowed drop
	}}
}}
"""

    def __init__(self, lab, node):
        self._run = lambda *argv, **more: lab.exec(node, *argv, **more).stdout

    def install(self, pod, allowed):
        """Let only `allowed` talk to `pod`."""
        kind = {"family": self.FAMILY, "hook": self.HOOK, "state": self.STATE}
        self._run("nft", "-f", "-", stdin=self.RULES.format(**kind, pod=pod, allowed=allowed))

    def remove(self):
        """Take the table away."""
        self._run("nft", "delete", "table", self.FAMILY, "kube-network-policies")


class Bridge(Nftables):
    """The same where frames are switched, of which it knows no connections."""

    FAMILY, HOOK, STATE = "bridge", "forward priority 0", ""


CONTROLLERS = {"kube-router": KubeRouter, "nftables": Nftables, "bridge": Bridge}


class BlockList:
    """An administrator's list of sources, dropped before anything is accepted.

    An ipset has no events: it grows unseen. `add_rule` blocks by a rule, which has.
    """

    def __init__(self, lab, node):
        self._run = lambda *argv: lab.exec(node, *argv).stdout

    def install(self):
        """Nobody is on the list yet."""
        self._run("ipset", "create", "blocked", "hash:ip")
        set_match = ["-m", "set", "--match-set", "blocked", "src"]
        self._run("iptables", "-N", "BLOCKED")
        self._run("iptables", "-A", "BLOCKED", *set_match, "-j", "DROP")
        self._run("iptables", "-I", "FORWARD", "-j", "BLOCKED")

    def add(self, source):
        """Block, by the list."""
        self._run("ipset", "add", "blocked", source)

    def add_rule(self, source):
        """Block, by a rule."""
        self._run("iptables", "-A", "BLOCKED", "-s", source, "-j", "DROP")

    def remove(self):
        """Block nobody."""
        self._run("iptables", "-D", "FORWARD", "-j", "BLOCKED")
        self._run("iptables", "-F", "BLOCKED")
        self._run("iptables", "-X", "BLOCKED")
        self._run("ipset", "destroy", "blocked")
