# SPDX-License-Identifier: Apache-2.0
"""Kernel settings, and the table of connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vxlane.doctor.facts import Facts
from vxlane.doctor.findings import Finding, fail, ok, warn
from vxlane.host.sysctls import BRIDGE_NETFILTER

FORWARDING = "net.ipv4.ip_forward"
LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"
IGNORE_RST = "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst"
STRICT = "1"
_FULL, _FILLING = 0.9, 0.7


def reverse_path(device: str) -> str:
    """The setting of a device, or of all devices. A device's name may have dots."""
    return f"net/ipv4/conf/{device}/rp_filter"


def bridge_netfilter(facts: Facts) -> Iterator[Finding]:
    """Packets between pods of this node meet netfilter's rules."""
    if not facts.links.bridges:
        return
    value = facts.sysctls.get(BRIDGE_NETFILTER)
    meaning = (
        "packets between two pods of this node meet no rule: a Service that leads to a pod of this"
        " node does not answer, and NetworkPolicy is not applied between them"
    )
    setting = f"sysctl -w {BRIDGE_NETFILTER}=1"
    if value is None:
        yield fail("br-netfilter", "it is not loaded", meaning, "modprobe br_netfilter", setting)
    elif value != "1":
        yield fail("br-netfilter", f"{BRIDGE_NETFILTER} is {value}", meaning, setting)
    else:
        yield ok("br-netfilter", "bridged packets meet iptables' rules")


def forwarding(facts: Facts) -> Iterator[Finding]:
    """The node forwards packets."""
    value = facts.sysctls.get(FORWARDING)
    if value == "1":
        yield ok("ip-forward", "the node forwards packets")
    else:
        meaning = "the kernel path drops every packet between a pod and another node"
        yield fail("ip-forward", f"{FORWARDING} is {value}", meaning, f"sysctl -w {FORWARDING}=1")


def reverse_paths(facts: Facts) -> Iterator[Finding]:
    """The reverse path filter drops nothing of the overlay's."""
    ends = [link.name for link in (facts.links.vtep, facts.links.nic) if link]
    # The kernel takes the greater of the two (net/ipv4/fib_frontend.c): 2 is loose.
    values = {
        name: max(facts.sysctls.get(reverse_path(of), "0") for of in ("all", name)) for name in ends
    }
    strict = [name for name, value in values.items() if value == STRICT]
    if strict and facts.reverse_path_drops:
        says = (
            f"it is strict on {' and '.join(strict)}, and has dropped {facts.reverse_path_drops}"
            " packets on this node"
        )
        meaning = (
            "packets that come by another device than their answers would leave by are dropped on"
            " the kernel path and not in the bypass"
        )
        loose = (f"sysctl -w {reverse_path(name)}=2" for name in strict)
        yield warn("rp-filter", says, meaning, *loose)
    elif ends:
        yield ok("rp-filter", "strict, and has dropped nothing" if strict else "not strict")


def conntrack_size(facts: Facts) -> Iterator[Finding]:
    """The table of connections has room."""
    table = facts.conntrack
    if table is None or not table.most:
        return
    share = table.count / table.most
    says = f"{table.count:,} of {table.most:,} connections"
    if share < _FILLING:
        yield ok("conntrack-size", says)
        return
    meaning = "the kernel drops new connections of pods and node when the table is full"
    level = fail if share >= _FULL else warn
    larger = f"sysctl -w net.netfilter.nf_conntrack_max={2 * table.most}"
    yield level("conntrack-size", says, meaning, larger)


def conntrack_windows(facts: Facts) -> Iterator[Finding]:
    """Bypassed connections are not INVALID to conntrack, or no rule drops what is."""
    wrong = [name for name in (LIBERAL, IGNORE_RST) if facts.sysctls.get(name, "1") != "1"]
    dropping = facts.rules.invalid
    told = f"{', '.join(dropping)} drops INVALID" if dropping else "no rule drops INVALID"
    if not wrong:
        yield ok("conntrack-tcp", f"windows that moved unseen are taken as valid; {told}")
    elif not facts.agent.is_bypassing:
        yield ok("conntrack-tcp", f"strict about windows, which nothing bypasses now; {told}")
    else:
        meaning = (
            "conntrack has not seen bypassed segments, so it may call the next packet of such a"
            " connection INVALID"
        )
        if dropping:
            meaning += f", which a rule in {', '.join(dropping)} drops"
        level = fail if dropping else warn
        settings = (f"sysctl -w {name}=1" for name in wrong)
        yield level("conntrack-tcp", f"{' and '.join(wrong)} is 0", meaning, *settings)
