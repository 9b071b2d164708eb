# SPDX-License-Identifier: Apache-2.0
"""flannel's masquerade and forward rules in nftables form (EnableNFTables).

Names and order are flannel's. Two of its faults are not copied. flannel tests the whole packet
mark, in which kube-proxy's bit may be one of several. Its fourth rule returns for every packet from
outside to any pod, so its last rule never masquerades one.
"""

from __future__ import annotations

from vxlane.errors import ToolError, ToolTimeoutError
from vxlane.host.firewall import KUBE_MARK, Forward, Masquerade, Policy, run

_TABLE = "ip flannel-ipv4"


def table(policy: Policy) -> str:
    """The whole table as `policy` wants it, as a script for nft."""
    lines = [*_postrouting(policy), *_forward(policy)]
    return "\n".join([f"table {_TABLE} {{", *(f"\t{line}" for line in lines), "}", ""])


def _postrouting(policy: Policy) -> list[str]:
    if policy.masquerade is Masquerade.OFF:
        return []
    network, pods = policy.network, policy.pod_cidr
    random = " fully-random" if policy.masquerade is Masquerade.FULLY_RANDOM else ""
    return [
        "chain postrtg {",
        "type nat hook postrouting priority srcnat; policy accept;",
        f"meta mark & {KUBE_MARK:#x} == {KUBE_MARK:#x} return",
        f"ip saddr {pods} ip daddr {network} return",
        f"ip saddr {network} ip daddr {pods} return",
        f"ip saddr != {network} ip daddr {pods} return",
        f"ip saddr {network} ip daddr != 224.0.0.0/4 masquerade{random}",
        f"ip saddr != {network} ip daddr {network} masquerade{random}",
        "}",
    ]


def _forward(policy: Policy) -> list[str]:
    if policy.forward is Forward.OFF:
        return []
    return [
        "chain forward {",
        "type filter hook forward priority filter; policy accept;",
        f"ip saddr {policy.network} accept",
        f"ip daddr {policy.network} accept",
        "}",
    ]


class Nftables:
    """Writes the rules as one table, replaced as a whole in one transaction.

    Versions of nft print the same rule differently. So the present listing is compared with the
    listing right after the rules were written, and the first `ensure` always writes.
    """

    def __init__(self) -> None:
        self._written: tuple[str, str] | None = None
        """The script, and nft's listing after it."""

    def ensure(self, policy: Policy) -> list[str]:
        """See `Firewall`."""
        script, present = table(policy), _list()
        if self._written == (script, present):
            return []
        run("nft", "-f", "-", script=f"add table {_TABLE}\ndelete table {_TABLE}\n{script}")
        self._written = script, _list()
        return [f"put nftables table {_TABLE}: {'it differed' if present else 'missing'}"]

    def remove(self) -> list[str]:
        """See `Firewall`."""
        self._written = None
        if not _list():
            return []
        run("nft", "delete", "table", *_TABLE.split())
        return [f"remove nftables table {_TABLE}: not wanted"]


def _list() -> str:
    """Nft's listing of the table, without counters; empty if there is none."""
    try:
        return run("nft", "--stateless", "list", "table", *_TABLE.split())
    except ToolTimeoutError:
        raise
    except ToolError:
        return ""
