# SPDX-License-Identifier: Apache-2.0
"""Before a path is measured: that it carries packets of full size, and is the right one."""

from __future__ import annotations

import re

from vxlane.bench import witness
from vxlane.bench.grounds import Stand
from vxlane.bench.snmp import fragments

_PINGS = 10
_HEADERS = 20 + 8
"""IPv4 and ICMP."""


def complaint(stand: Stand) -> str:
    """What is wrong with the path; empty: nothing. Sends ten pings that must not be fragmented."""
    before, cut = witness.read(stand.checks), _fragments(stand)
    size = str(stand.mtu - _HEADERS)
    ping = ["ping", "-n", "-q", "-M", "do", "-s", size, "-c", str(_PINGS), "-i", "0.005", "-W", "1"]
    said = stand.ends.source.run(*ping, stand.ping, check=False).stdout
    found = re.search(r"(\d+) received", said)
    received = int(found[1]) if found else 0
    if received < _PINGS:
        return f"{received} of {_PINGS} pings of {stand.mtu} bytes came back"
    # DF is the inner packet's: the tunnel's own packets may be cut all the same.
    if (cut := _fragments(stand) - cut) >= _PINGS:
        return f"{cut} fragments were made or came while {_PINGS} pings of {stand.mtu} bytes went"
    return witness.complaint(
        stand.checks, before, witness.read(stand.checks), witness.MOST_OF_PINGS
    )


def _fragments(stand: Stand) -> int:
    return sum(fragments(end.read("/proc/net/snmp")) for end in stand.cutting)
