# SPDX-License-Identifier: Apache-2.0
"""kube-proxy's rules for many Services, in the shape of its mode iptables. The text is pure.

No packet is sent to them. They cost time because the first packet of each connection is compared
with all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.lab import namespaces

_ENDPOINTS = 2
BASE = """\
table ip filter {
 chain FORWARD { type filter hook forward priority 0; policy accept; jump KUBE-FORWARD
 }
 chain KUBE-FORWARD { ct state invalid drop
  ct state related,established accept
 }
}
table ip nat {
 chain PREROUTING { type nat hook prerouting priority -100; policy accept; jump KUBE-SERVICES
 }
 chain KUBE-SERVICES {
 }
 chain KUBE-MARK-MASQ { meta mark set meta mark or 0x4000
 }
}
"""
"""Tables, hooks and what packets of established connections meet: all but the Services."""


def rules(count: int) -> str:
    """For nft: the rules of `count` Services of two endpoints each."""
    lines = [line for number in range(count) for line in _service(number)]
    return BASE + "\n".join([*lines, ""])


def _service(number: int) -> Iterator[str]:
    high, low = divmod(number, 250)
    chains = [f"KUBE-SEP-{number}-{endpoint}" for endpoint in range(_ENDPOINTS)]
    yield from (f"add chain ip nat {name}" for name in (f"KUBE-SVC-{number}", *chains))
    match = f"ip daddr 10.43.{high}.{low + 1} tcp dport 80"
    yield f"add rule ip nat KUBE-SERVICES {match} counter jump KUBE-SVC-{number}"
    yield f"add rule ip nat KUBE-SVC-{number} numgen random mod 2 0 jump {chains[0]}"
    yield f"add rule ip nat KUBE-SVC-{number} jump {chains[1]}"
    for endpoint, chain in enumerate(chains):
        address = f"10.42.{200 + endpoint}.{number % 200 + 1}"
        yield f"add rule ip nat {chain} ip saddr {address} jump KUBE-MARK-MASQ"
        yield f"add rule ip nat {chain} meta l4proto tcp dnat to {address}:80"


def load(node: str, count: int) -> None:
    """Give `node` the rules of `count` Services."""
    namespaces.run(node, "nft", "-f", "-", stdin=rules(count))
