# SPDX-License-Identifier: Apache-2.0
"""Which ports of bridges nftables checks by name: the bridge plugin's macspoofchk, or the like.

Asked for with every pod, and listing rules takes a process of nft: so they are listed only after
nftables has another generation, which each transaction makes. Imports firewall and netlink.
"""

from __future__ import annotations

import re
import socket

from vxlane.errors import ToolError
from vxlane.host.firewall import run
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import NetlinkSocket, Request

_MATCH = re.compile(r"[io]if(?:name)? (?:== )?(\{[^}]*\}|\"[^\"]*\")")
_NAME = re.compile(r"\"([^\"]+)\"")


class CheckedPorts:
    """Names of the devices that some rule of a bridge table matches on.

    A packet that is bypassed does not meet those rules, whatever they check.
    """

    def __init__(self) -> None:
        self._generation: bytes | int | None = None
        self._names: frozenset[str] = frozenset()

    def names(self) -> frozenset[str]:
        """The names, as of now."""
        # Before the rules: should they change in between, the next call lists them again.
        generation = _generation()
        if isinstance(generation, int) or generation != self._generation:
            self._names = _listed()
            self._generation = generation
        return self._names


def _generation() -> bytes | int:
    """What nftables calls the present rules; an errno where it does not say."""
    netlink = NetlinkSocket(nf.NETLINK_NETFILTER)
    try:
        return netlink.request(
            [Request(nf.NFT_MSG_GETGEN, nf.NFGENMSG.pack(socket.AF_UNSPEC, 0, 0))]
        )[0]
    finally:
        netlink.close()


def _listed() -> frozenset[str]:
    """Without nft there are none: the plugin itself writes them with it."""
    try:
        ruleset = run("nft", "--stateless", "list", "ruleset", "bridge")
    except ToolError:
        return frozenset()
    return frozenset(name for match in _MATCH.findall(ruleset) for name in _NAME.findall(match))
