# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's rules for a Service, as its iptables and its nftables mode write them.

Names, order, marks and comments are those of kube-proxy 1.31. Both modes here drop what conntrack
takes for INVALID, as kube-proxy does unless nf_conntrack_tcp_be_liberal was on when it started.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass

from paths import ruleset

NETWORK = "10.42.0.0/16"
VIRTUAL = "10.96.0.10"
PORT = 80
NODE_PORT = 30080
PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class Service:
    """default/web: VIRTUAL:80 and NODE_PORT, TCP and UDP, for `backends` (addresses) at `port`."""

    backends: tuple[str, ...]
    port: int


def _hash(*words):
    return hashlib.sha256("".join(words).encode()).hexdigest()[:16].upper()


class Iptables:
    """The iptables mode."""

    HEAD = """\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" \
-j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
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
-A KUBE-SVC-{id} ! -s {network} -d {virtual}/32 -p {protocol} \
-m comment --comment "{name} cluster IP" -m {protocol} --dport {port} -j KUBE-MARK-MASQ
"""
    ENDPOINT = """\
:KUBE-SEP-{end} - [0:0]
-A KUBE-SVC-{id} -m comment --comment "{name} -> {to}" \
-m statistic --mode random --probability {probability} -j KUBE-SEP-{end}
-A KUBE-SEP-{end} -s {backend}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ
-A KUBE-SEP-{end} -p {protocol} -m comment --comment "{name}" -m {protocol} \
-j DNAT --to-destination {to}
"""
    TAIL = """\
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the \
last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" \
-m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" \
-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"""

    def __init__(self, lab, node):
        self._lab, self._node = lab, node
        self._before = ""

    def install(self, service):
        """Write the rules."""
        self._before = self._lab.exec(self._node, "iptables-save").stdout
        self._restore(self.rules(service), "--noflush")

    def remove(self):
        """Leave the tables as they were."""
        self._restore(self._before)

    def invalid(self):
        """How many packets were dropped as INVALID."""
        shown = self._lab.exec(self._node, "iptables", "-nvxL", "KUBE-FORWARD").stdout
        return int(re.search(r"^ *(\d+) .* DROP .* INVALID", shown, re.MULTILINE)[1])

    def _restore(self, rules, *options):
        self._lab.exec(self._node, "iptables-restore", "--wait", *options, stdin=rules)

    def rules(self, service):
        """What iptables-restore --noflush is given."""
        middle = "".join(self._portal(service, protocol) for protocol in PROTOCOLS)
        return self.HEAD + middle + self.TAIL

    def _portal(self, service, protocol):
        name = f"default/web:{protocol}"
        common = {"id": _hash(name), "name": name, "protocol": protocol}
        more = {"virtual": VIRTUAL, "port": PORT, "node_port": NODE_PORT, "network": NETWORK}
        text = self.PORTAL.format(**common, **more)
        for number, backend in enumerate(service.backends):
            to = f"{backend}:{service.port}"
            text += self.ENDPOINT.format(
                **common,
                backend=backend,
                to=to,
                end=_hash(name, to),
                probability=f"{1 / (len(service.backends) - number):.10f}",
            )
        return text


class Nftables:
    """The nftables mode."""

    BASE = """\
add table ip kube-proxy {{ comment "rules for kube-proxy" ; }}
add set ip kube-proxy nodeport-ips {{ type ipv4_addr ; }}
add map ip kube-proxy service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict ; }}
add map ip kube-proxy service-nodeports {{ type inet_proto . inet_service : verdict ; }}
add chain ip kube-proxy filter-forward {{ type filter hook forward priority 0 ; }}
add chain ip kube-proxy mark-for-masquerade
add chain ip kube-proxy masquerading
add chain ip kube-proxy services
add chain ip kube-proxy nat-output {{ type nat hook output priority -100 ; }}
add chain ip kube-proxy nat-postrouting {{ type nat hook postrouting priority 100 ; }}
add chain ip kube-proxy nat-prerouting {{ type nat hook prerouting priority -100 ; }}
add rule ip kube-proxy filter-forward ct state invalid counter drop
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading mark set mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport \
vmap @service-nodeports
add element ip kube-proxy nodeport-ips {{ {node} }}
"""
    PORTAL = """\
add chain ip kube-proxy {service}
add chain ip kube-proxy {external}
add rule ip kube-proxy {service} ip daddr {virtual} ip saddr != {network} jump mark-for-masquerade
add rule ip kube-proxy {external} jump mark-for-masquerade
add rule ip kube-proxy {external} goto {service}
add element ip kube-proxy service-ips {{ {virtual} . {protocol} . {port} : goto {service} }}
add element ip kube-proxy service-nodeports {{ {protocol} . {node_port} : goto {external} }}
"""
    ENDPOINT = """\
add chain ip kube-proxy {endpoint}
add rule ip kube-proxy {endpoint} ip saddr {backend} jump mark-for-masquerade
add rule ip kube-proxy {endpoint} meta l4proto {protocol} dnat to {backend}:{port}
"""
    CHOICE = "add rule ip kube-proxy {service} numgen random mod {count} vmap {{ {choices} }}\n"

    def __init__(self, lab, node):
        self._lab, self._node = lab, node

    def install(self, service):
        """Write the rules."""
        self._lab.exec(self._node, "nft", "-f", "-", stdin=self.rules(service))

    def remove(self):
        """Take the table away."""
        self._lab.exec(self._node, "nft", "delete", "table", "ip", "kube-proxy")

    def invalid(self):
        """How many packets were dropped as INVALID."""
        listed = ["nft", "list", "chain", "ip", "kube-proxy", "filter-forward"]
        return int(re.search(r"packets (\d+)", self._lab.exec(self._node, *listed).stdout)[1])

    def rules(self, service):
        """What nft -f is given."""
        base = self.BASE.format(node=self._lab.address(self._node))
        return base + "".join(self._portal(service, protocol) for protocol in PROTOCOLS)

    def _portal(self, service, protocol):
        name = f"default/web/{protocol}/p{PORT}"
        chain = f"service-{_hash(name)[:8]}-{name}"
        text = self.PORTAL.format(
            service=chain,
            external=chain.replace("service-", "external-"),
            virtual=VIRTUAL,
            network=NETWORK,
            protocol=protocol,
            port=PORT,
            node_port=NODE_PORT,
        )
        endpoints = []
        for backend in service.backends:
            end = f"{name}__{backend}/{service.port}"
            endpoints.append(f"endpoint-{_hash(end)[:8]}-{end}")
            text += self.ENDPOINT.format(
                endpoint=endpoints[-1], backend=backend, protocol=protocol, port=service.port
            )
        choices = ", ".join(f"{number} : goto {end}" for number, end in enumerate(endpoints))
        return text + self.CHOICE.format(service=chain, count=len(endpoints), choices=choices)


MODES = {"iptables": Iptables, "nftables": Nftables}


@contextlib.contextmanager
def dropping_invalid(lab, nodes=("node1", "node2")):
    """Run kube-proxy on nodes; what each has dropped as INVALID is there at the end."""
    proxies = [Iptables(lab, node) for node in nodes]
    for node, proxy in zip(nodes, proxies, strict=True):
        with ruleset(lab, node):
            proxy.install(Service(("10.42.2.2",), PORT))
    dropped = []
    try:
        yield dropped
    finally:
        for node, proxy in zip(nodes, proxies, strict=True):
            dropped.append(proxy.invalid())
            with ruleset(lab, node):
                proxy.remove()
