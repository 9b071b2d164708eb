# SPDX-License-Identifier: Apache-2.0
"""Ends the way of the copies that conntrack is shown (bpf/conntrack.h), by an nftables table of
vxlane's own.

No copy goes further than ip_forward(), which drops it. Behind conntrack it has served, and the rest
of PREROUTING and the look-up of a route cost as much again. The rule knows a copy by its
destination, so no other packet meets it.
"""

from __future__ import annotations

import logging

from vxlane.datapath.abi import HEADER
from vxlane.errors import ToolError
from vxlane.host.firewall import run
from vxlane.host.own_tables import COPIES, anew, has_rules
from vxlane.host.undo import UndoFile

log = logging.getLogger(__name__)

_NOBODY = ":".join(f"{octet:02x}" for octet in HEADER.enums["nobody"].values())
# conntrack's priority is -200. The type of a packet is compared first, for it costs the least.
_TABLE = f"""\
table ip {COPIES} {{
	chain seen {{
		type filter hook prerouting priority -199; policy accept;
		meta pkttype multicast ether daddr {_NOBODY} drop
	}}
}}
"""


class CopyRule:
    """The one rule. Without nft, or nftables in the kernel, copies go on to ip_forward()."""

    def __init__(self, undo: UndoFile) -> None:
        self._undo = undo
        self._told = ""

    def ensure(self) -> None:
        """Write the table if it is not there, or has lost its rule."""
        self._undo.note(copies=COPIES)
        if has_rules(COPIES):
            return
        try:
            run("nft", "-f", "-", script=anew(COPIES) + _TABLE)
        except ToolError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.info("the copies for conntrack go further than they need: %s", error)
