# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's rules for many Services, in the shape of both its modes, and one that changes.

Written by nft, which loads them in seconds; the tables, hooks and verdicts are kube-proxy's.
"""

from __future__ import annotations

import itertools

from vxlane.bench.services import BASE

ENDPOINTS = 2
WITHOUT_ENDPOINTS = 5
"""In every so many changes a Service loses its last one."""


class Iptables:
    """Chains of tables that iptables-nft has, two rules for each endpoint."""

    def __init__(self, count):
        self._count = count

    def rules(self):
        """All of them."""
        chains, rules = [], []
        for number in range(self._count):
            chains += [f"add chain ip nat {name}" for name in self._chains(number)]
            rules += [*self._service(number, 1), self._portal(number)]
        return BASE + "\n".join([*chains, *rules, ""])

    def change(self, number, turn):
        """As kube-proxy's partial sync: the filter chains, every portal, and one Service."""
        flushed = ["nat KUBE-SERVICES", "filter KUBE-FORWARD"]
        flushed += [f"nat {name}" for name in self._chains(number)]
        lines = [f"flush chain ip {name}" for name in flushed]
        lines += [
            "add rule ip filter KUBE-FORWARD ct state invalid drop",
            "add rule ip filter KUBE-FORWARD ct state related,established accept",
            *map(self._portal, range(self._count)),
            *self._service(number, turn),
        ]
        return "\n".join([*lines, ""])

    def _chains(self, number):
        return [f"KUBE-SVC-{number}", *(f"KUBE-SEP-{number}-{n}" for n in range(ENDPOINTS))]

    def _portal(self, number):
        high, low = divmod(number, 250)
        match = f"ip daddr 10.43.{high}.{low + 1} tcp dport 80"
        return f"add rule ip nat KUBE-SERVICES {match} counter jump KUBE-SVC-{number}"

    def _service(self, number, turn):
        yield f"add rule ip nat KUBE-SVC-{number} numgen random mod 2 0 jump KUBE-SEP-{number}-0"
        yield f"add rule ip nat KUBE-SVC-{number} jump KUBE-SEP-{number}-1"
        for endpoint in range(ENDPOINTS):
            chain = f"add rule ip nat KUBE-SEP-{number}-{endpoint}"
            address = f"10.42.{100 + endpoint}.{turn % 200 + 1}"
            yield f"{chain} ip saddr {address} jump KUBE-MARK-MASQ"
            yield f"{chain} meta l4proto tcp dnat to {address}:80"


class Nftables:
    """A table with verdict maps, a chain for each endpoint."""

    BASE = """\
table ip kube-proxy {
 map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
 map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
 chain filter-forward { type filter hook forward priority 0; policy accept; ct state invalid drop
  ct state new jump service-endpoints-check
 }
 chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services
 }
 chain nat-prerouting { type nat hook prerouting priority -100; policy accept
  ip daddr . meta l4proto . th dport vmap @service-ips
 }
}
"""

    def __init__(self, count):
        self._count = count

    def rules(self):
        """All of them."""
        lines = [line for number in range(self._count) for line in self._service(number)]
        return self.BASE + "\n".join([*lines, ""])

    def change(self, number, turn):
        """One endpoint of one Service is another; now and then one has none for a moment."""
        chain = f"ip kube-proxy endpoint-{number}-0"
        lines = [f"flush chain {chain}", f"add rule {chain} meta l4proto tcp dnat to 10.42.9.9:80"]
        if turn % WITHOUT_ENDPOINTS == 0:
            high, low = divmod(turn, 250)
            key = f"10.44.{high}.{low + 1} . tcp . 80"
            lines.append(f"add element ip kube-proxy no-endpoint-services {{ {key} : drop }}")
        return "\n".join([*lines, ""])

    def _service(self, number):
        ends = [f"endpoint-{number}-{endpoint}" for endpoint in range(ENDPOINTS)]
        for end in ends:
            yield f"add chain ip kube-proxy {end}"
            yield f"add rule ip kube-proxy {end} meta l4proto tcp dnat to 10.42.9.1:80"
        choice = ", ".join(f"{n} : goto {end}" for n, end in zip(itertools.count(), ends))
        yield f"add chain ip kube-proxy service-{number}"
        yield f"add rule ip kube-proxy service-{number} numgen random mod 2 vmap {{ {choice} }}"
        high, low = divmod(number, 250)
        key = f"10.43.{high}.{low + 1} . tcp . 80"
        yield f"add element ip kube-proxy service-ips {{ {key} : goto service-{number} }}"
