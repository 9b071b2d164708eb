# SPDX-License-Identifier: Apache-2.0
"""What the IP stack counts, from the text of /proc/net/snmp (proc(5)). Pure."""

from __future__ import annotations


def _counts(text: str, protocol: str) -> dict[str, int]:
    """By name: the kernel names its counters in one line and has their values in the next."""
    lines = (line.split() for line in text.splitlines() if line.startswith(f"{protocol}:"))
    names, values = lines
    return dict(zip(names[1:], map(int, values[1:]), strict=True))


def socket_drops(text: str) -> int:
    """Datagrams that found a full socket."""
    return _counts(text, "Udp")["RcvbufErrors"]


def datagrams_in(text: str) -> int:
    """Datagrams that reached a socket, also a full one."""
    counts = _counts(text, "Udp")
    return counts["InDatagrams"] + counts["InErrors"]


def fragments(text: str) -> int:
    """Fragments that were made here, and that came here."""
    counts = _counts(text, "Ip")
    return counts["FragCreates"] + counts["ReasmReqds"]
