# SPDX-License-Identifier: Apache-2.0
"""Keeps the tunnel's packets out of conntrack, by an nftables table of vxlane's own.

Otherwise each flow's tunnel packets have a conntrack entry on both nodes, which costs 5 % of a
short connection. The rules look up a set whose one element expires after some seconds, so they end
with the agent that renews it. nft writes the table. The element is written by netlink, because nft
may take a second beside the rules of thousands of Services.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from vxlane.host.firewall import run
from vxlane.host.own_tables import HEADER, TUNNELS, anew, remove, write
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink import nftables as nft
from vxlane.netlink.socket import (
    Intent,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    string_attribute,
)

LASTS, RENEW_EVERY = 30, 10.0
"""Seconds for which the rules act, and between renewals. More frequent renewals would do harm: a
program that lists rules starts again when a transaction interrupts it, and beside thousands of
Services a listing takes nft more than a second.
"""
_SET = "held"
_FLAGS = 0x08000000
"""The first word of a VXLAN header: it has a VNI (RFC 7348, 5)."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel whose packets are not tracked."""

    address: IPv4Address
    """The address of this node's VTEP. Pods have others, so they never meet the rules."""
    port: int
    vni: int
    nics: tuple[str, ...]
    """The NICs that packets from peers arrive on. A pod's packets to `address` are tracked."""


def script(tunnel: Tunnel, lasts: int = LASTS) -> str:
    """The whole table, as a script for nft. Priority raw is before conntrack.

    No rule acts before the first renewal: while nft runs, the node's rules may change.
    """
    nics = ", ".join(f'"{nic}"' for nic in tunnel.nics)
    # NAT may give a pod's packets the port too: a VXLAN socket does not keep it from that.
    ours = f"udp dport @{_SET} @th,64,32 {_FLAGS:#x} @th,96,24 {tunnel.vni}"
    return f"""\
table ip {TUNNELS} {{
	set {_SET} {{
		type inet_service; flags timeout; timeout {lasts}s;
	}}
	chain out {{
		type filter hook output priority raw; policy accept;
		ip saddr {tunnel.address} {ours} notrack
	}}
	chain in {{
		type filter hook prerouting priority raw; policy accept;
		ip daddr {tunnel.address} {ours} iifname {{ {nics} }} notrack
	}}
}}
"""


class Notrack:
    """Writes, renews and removes the rules, each in one transaction.

    `lasts`: seconds for which they act without a renewal. If someone removes the table, the next
    renewal fails.
    """

    def __init__(self, lasts: int = LASTS) -> None:
        self._lasts = lasts
        self._netlink = NetlinkSocket(nf.NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket. The rules act for some seconds more."""
        self._netlink.close()

    def put(self, tunnel: Tunnel) -> None:
        """Write the table in place of an older one. Call `renew` next. ToolError: nft failed."""
        run("nft", "-f", "-", script=anew(TUNNELS) + script(tunnel, self._lasts))

    def renew(self, tunnel: Tunnel) -> None:
        """Make the rules act from now on. KernelError: the table is not as it was written.

        The element is replaced, because kernels before 6.12 can't extend one.
        """
        key = nested(nf.NFTA_SET_ELEM_KEY, attribute(nft.NFTA_DATA_VALUE, _port(tunnel)))
        element = nested(nf.NFTA_SET_ELEM_LIST_ELEMENTS, nested(nf.NFTA_LIST_ELEM, key))
        add = Request(nf.NFT_MSG_NEWSETELEM, _IN_SET + element, Intent.PUT)
        self._write("renew", _EMPTY, add)

    def withdraw(self) -> None:
        """Make no rule act any more, from the next packet on."""
        self._write("withdraw", _EMPTY)

    def remove(self) -> bool:
        """Remove the table. True: it was there."""
        return remove(TUNNELS)

    def _write(self, verb: str, *requests: Request) -> None:
        write(self._netlink, verb, TUNNELS, requests)


def _port(tunnel: Tunnel) -> bytes:
    return tunnel.port.to_bytes(2, "big")


_IN_SET = (
    HEADER
    + string_attribute(nf.NFTA_SET_ELEM_LIST_TABLE, TUNNELS)
    + string_attribute(nf.NFTA_SET_ELEM_LIST_SET, _SET)
)
_EMPTY = Request(nf.NFT_MSG_DELSETELEM, _IN_SET)
