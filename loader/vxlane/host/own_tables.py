# SPDX-License-Identifier: Apache-2.0
"""vxlane's own nftables tables, each of family ip: their names, and how they are removed."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from vxlane.errors import KernelError
from vxlane.netlink import nfnetlink as nf
from vxlane.netlink.socket import NetlinkSocket, Request, string_attribute

TUNNELS, COPIES = "vxlane", "vxlane-copies"
OWN_TABLES = frozenset({TUNNELS, COPIES})
"""Their rules drop or change no packet of a pod's. So they are no mechanism, and to write them
withdraws no approval. The events about them are ignored."""
HEADER = nf.NFGENMSG.pack(socket.AF_INET, 0, 0)
_MISSING = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP})
"""There is no such table, or this kernel has no nftables."""


def has_rules(table: str) -> bool:
    """Whether the table is there, and a rule in it."""
    of_table = HEADER + string_attribute(nf.NFTA_RULE_TABLE, table)
    with contextlib.closing(NetlinkSocket(nf.NETLINK_NETFILTER)) as netlink:
        try:
            return bool(netlink.dump(Request(nf.NFT_MSG_GETRULE, of_table)))
        except KernelError as error:
            if error.errno in _MISSING:
                return False
            raise


def anew(table: str) -> str:
    """What a script for nft begins with that puts the table in place of an older one."""
    return f"add table ip {table}\ndelete table ip {table}\n"


def write(netlink: NetlinkSocket, verb: str, table: str, requests: Sequence[Request]) -> None:
    """Carry out all `requests` in one transaction. KernelError: none of them was."""
    if code := netlink.transact(requests, nf.NFNL_SUBSYS_NFTABLES):
        raise KernelError(f"{verb} the rules of nftables table ip {table}", code)


def remove(table: str) -> bool:
    """Remove the table. True: it was there."""
    with contextlib.closing(NetlinkSocket(nf.NETLINK_NETFILTER)) as netlink:
        try:
            write(netlink, "remove", table, [Request(nf.NFT_MSG_DELTABLE, _named(table))])
        except KernelError as error:
            if error.errno in _MISSING:
                return False
            raise
    return True


def _named(table: str) -> bytes:
    return HEADER + string_attribute(nf.NFTA_TABLE_NAME, table)
