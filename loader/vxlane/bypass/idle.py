# SPDX-License-Identifier: Apache-2.0
"""Gives connections that become idle after a bypass the conntrack timeout of an unbypassed one.

The last packet that conntrack saw of a bypassed connection may be data, and its acknowledgement may
have been bypassed. Conntrack then forgets the connection after
nf_conntrack_tcp_timeout_unacknowledged, which is 300 s instead of five days (tcp_in_window() and
nf_conntrack_tcp_packet() in net/netfilter/nf_conntrack_proto_tcp.c). It would forget idle
connections to SSH, MySQL or SMTP, whose servers speak first. Flow records say when a flow was last
bypassed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from vxlane.datapath.maps import Maps
from vxlane.host.conntrack import keep_connections
from vxlane.util.five_tuple import FiveTuple

_AT_A_TIME = 20_000
"""Records read in one go; 20 ms."""


class IdleConnections:
    """Reads the flow records again and again. Tells conntrack once of each idle connection."""

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._walk: Iterator[tuple[FiveTuple, int] | None] = iter(())
        # The agent before this one has told conntrack of connections that were idle before.
        self._until = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def sync(self, silence: int) -> None:
        """Read some more records. A connection is idle after `silence` ns without a packet."""
        seen = list(islice(self._walk, _AT_A_TIME))
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if idle := [found for found in seen if found]:
            keep_connections((flow, (now - used) / 1_000_000_000) for flow, used in idle)
        until = now - silence
        # A third of it later is early enough: the shortest timeout is three times the silence.
        if len(seen) < _AT_A_TIME and until > self._until + silence // 3:
            self._walk = self._maps.connections_last_used(self._until, until)
            self._until = until
