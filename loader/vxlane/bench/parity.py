# SPDX-License-Identifier: Apache-2.0
"""Before a path is measured: whether it carries a packet of full size, and is the right path."""

from __future__ import annotations

import re

from vxlane.bench import witness
from vxlane.bench.grounds import Stand
from vxlane.lab import namespaces

_PINGS = 10
_HEADERS = 20 + 8
"""IPv4 and ICMP."""


def complaint(stand: Stand) -> str:
    """What is wrong with the path; empty: nothing. Sends ten pings that must not be fragmented."""
    before = witness.read(stand.checks)
    size = str(stand.mtu - _HEADERS)
    ping = ["ping", "-n", "-q", "-M", "do", "-s", size, "-c", str(_PINGS), "-i", "0.005", "-W", "1"]
    said = namespaces.run(stand.ends.source, *ping, stand.ping, check=False).stdout
    found = re.search(r"(\d+) received", said)
    received = int(found[1]) if found else 0
    if received < _PINGS:
        return f"{received} of {_PINGS} pings of {stand.mtu} bytes came back"
    return witness.complaint(
        stand.checks, before, witness.read(stand.checks), witness.MOST_OF_PINGS
    )
