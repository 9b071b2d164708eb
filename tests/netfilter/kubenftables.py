# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's rules as its nftables mode writes them."""

from __future__ import annotations

import re

from kubeservice import AFFINITY, NETWORK, PORT, PROTOCOLS, digest


class Nftables:
    """The nftables mode; `masquerade_all` is kube-proxy's --masquerade-all."""

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
flush chain ip kube-proxy {service}
add chain ip kube-proxy {external}
flush chain ip kube-proxy {external}
add rule ip kube-proxy {service} ip daddr {virtual} {whose}jump mark-for-masquerade
add rule ip kube-proxy {external} jump mark-for-masquerade
add rule ip kube-proxy {external} goto {service}
add element ip kube-proxy service-ips {{ {virtual} . {protocol} . {port} : goto {service} }}
add element ip kube-proxy service-nodeports {{ {protocol} . {node_port} : goto {external} }}
"""
    ENDPOINT = """\
add chain ip kube-proxy {endpoint}
flush chain ip kube-proxy {endpoint}
add rule ip kube-proxy {endpoint} ip saddr {backend} jump mark-for-masquerade
{remember}\
add rule ip kube-proxy {endpoint} meta l4proto {protocol} dnat to {backend}:{port}
"""
    MEMORY = """\
add set ip kube-proxy {known} {{ type ipv4_addr ; flags dynamic,timeout ; timeout {affinity}s ; }}
add rule ip kube-proxy {service} ip saddr @{known} goto {endpoint}
"""
    REMEMBER = (
        "add rule ip kube-proxy {endpoint} update @{known} {{ ip saddr timeout {affinity}s }}\n"
    )
    CHOICE = "add rule ip kube-proxy {service} numgen random mod {count} vmap {{ {choices} }}\n"

    def __init__(self, lab, node, *, masquerade_all=False):
        self._lab, self._node, self._masquerade_all = lab, node, masquerade_all

    def install(self, *services):
        """Write the rules."""
        base = self.BASE.format(node=self._lab.address(self._node))
        self._write(base + self.rules(*services))

    def change(self, *services):
        """Write the rules of other Services in place of those that are there."""
        # kube-proxy leaves old endpoints' chains for a while.
        self._write(self.rules(*services))

    def remove(self):
        """Take the table away."""
        self._lab.exec(self._node, "nft", "delete", "table", "ip", "kube-proxy")

    def invalid(self):
        """How many packets were dropped as INVALID."""
        listed = ["nft", "list", "chain", "ip", "kube-proxy", "filter-forward"]
        return int(re.search(r"packets (\d+)", self._lab.exec(self._node, *listed).stdout)[1])

    def _write(self, rules):
        self._lab.exec(self._node, "nft", "-f", "-", stdin=rules)

    def rules(self, *services):
        """What nft -f is given for Services."""
        return "".join(self._portal(service, kind) for service in services for kind in PROTOCOLS)

    def _portal(self, service, protocol):
        name = f"default/{service.name}/{protocol}/p{PORT}"
        chain = f"service-{digest(name)[:8]}-{name}"
        text = self.PORTAL.format(
            service=chain,
            external=chain.replace("service-", "external-"),
            virtual=service.virtual,
            whose="" if self._masquerade_all else f"ip saddr != {NETWORK} ",
            protocol=protocol,
            port=PORT,
            node_port=service.node_port,
        )
        ends = []
        for backend in service.backends:
            name_of_end = f"{name}__{backend}/{service.port}"
            ends.append(f"endpoint-{digest(name_of_end)[:8]}-{name_of_end}")
            text += self._endpoint(service, chain, ends[-1], backend, protocol)
        choices = ", ".join(f"{number} : goto {end}" for number, end in enumerate(ends))
        return text + self.CHOICE.format(service=chain, count=len(ends), choices=choices)

    def _endpoint(self, service, chain, end, backend, protocol):
        affinity = {
            "service": chain,
            "endpoint": end,
            "known": end.replace("endpoint-", "affinity-"),
            "affinity": AFFINITY,
        }
        text = self.ENDPOINT.format(
            endpoint=end,
            backend=backend,
            protocol=protocol,
            port=service.port,
            remember=self.REMEMBER.format(**affinity) if service.affinity else "",
        )
        if not service.affinity:
            return text
        # The set is there before the rule that fills it.
        memory, rule = self.MEMORY.format(**affinity).splitlines(keepends=True)
        return memory + text + rule
