# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's rules as its iptables mode writes them."""

from __future__ import annotations

import re

from kubeservice import AFFINITY, NETWORK, PORT, PROTOCOLS, digest


class Iptables:
    """The iptables mode; `masquerade_all` is kube-proxy's --masquerade-all."""

    HEAD = """\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" \
-j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
"""
    JUMPS = """\
*nat
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
COMMIT
*filter
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
COMMIT
"""
    PORTAL = """\
:KUBE-SVC-{id} - [0:0]
:KUBE-EXT-{id} - [0:0]
-A KUBE-SERVICES -d {virtual}/32 -p {protocol} -m comment --comment "{name} cluster IP" \
-m {protocol} --dport {port} -j KUBE-SVC-{id}
-A KUBE-NODEPORTS -p {protocol} -m comment --comment "{name}" -m {protocol} \
--dport {node_port} -j KUBE-EXT-{id}
-A KUBE-EXT-{id} -m comment --comment "masquerade traffic for {name} external destinations" \
-j KUBE-MARK-MASQ
-A KUBE-EXT-{id} -j KUBE-SVC-{id}
-A KUBE-SVC-{id} {whose}-d {virtual}/32 -p {protocol} \
-m comment --comment "{name} cluster IP" -m {protocol} --dport {port} -j KUBE-MARK-MASQ
"""
    STICKY = """\
-A KUBE-SVC-{id} -m comment --comment "{name} -> {to}" \
-m recent --name KUBE-SEP-{end} --rcheck --seconds {affinity} --reap -j KUBE-SEP-{end}
"""
    CHOICE = """\
-A KUBE-SVC-{id} -m comment --comment "{name} -> {to}" \
-m statistic --mode random --probability {probability} -j KUBE-SEP-{end}
"""
    ENDPOINT = """\
:KUBE-SEP-{end} - [0:0]
-A KUBE-SEP-{end} -s {backend}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ
-A KUBE-SEP-{end} -p {protocol} -m comment --comment "{name}" {remember}-m {protocol} \
-j DNAT --to-destination {to}
"""
    TAIL = """\
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the \
last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" \
-m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" \
-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""

    def __init__(self, lab, node, *, masquerade_all=False):
        self._lab, self._node, self._masquerade_all = lab, node, masquerade_all
        self._before = ""

    def install(self, *services):
        """Write the rules."""
        self._before = self._lab.exec(self._node, "iptables-save").stdout
        self.change(*services)
        self._restore(self.JUMPS, "--noflush")

    def change(self, *services):
        """Write the rules of other Services in place of those that are there."""
        # A chain that is named is flushed. kube-proxy leaves old endpoints' chains for a while.
        self._restore(self.rules(*services), "--noflush")

    def remove(self):
        """Leave the tables as they were."""
        self._restore(self._before)

    def invalid(self):
        """How many packets were dropped as INVALID."""
        shown = self._lab.exec(self._node, "iptables", "-nvxL", "KUBE-FORWARD").stdout
        return int(re.search(r"^ *(\d+) .* DROP .* INVALID", shown, re.MULTILINE)[1])

    def _restore(self, rules, *options):
        self._lab.exec(self._node, "iptables-restore", "--wait", *options, stdin=rules)

    def rules(self, *services):
        """What iptables-restore --noflush is given."""
        portals = (self._portal(service, kind) for service in services for kind in PROTOCOLS)
        return self.HEAD + "".join(portals) + self.TAIL

    def _portal(self, service, protocol):
        name = f"default/{service.name}:{protocol}"
        common = {"id": digest(name), "name": name, "protocol": protocol}
        text = self.PORTAL.format(
            **common,
            whose="" if self._masquerade_all else f"! -s {NETWORK} ",
            virtual=service.virtual,
            port=PORT,
            node_port=service.node_port,
        )
        ends, sticky, choices = "", "", ""
        for number, backend in enumerate(service.backends):
            to = f"{backend}:{service.port}"
            end = digest(name, to)
            remember = f"-m recent --name KUBE-SEP-{end} --set " if service.affinity else ""
            ends += self.ENDPOINT.format(
                **common, backend=backend, to=to, end=end, remember=remember
            )
            sticky += self.STICKY.format(**common, to=to, end=end, affinity=AFFINITY)
            probability = f"{1 / (len(service.backends) - number):.10f}"
            choices += self.CHOICE.format(**common, to=to, end=end, probability=probability)
        return text + ends + (sticky if service.affinity else "") + choices
