# SPDX-License-Identifier: Apache-2.0
"""For how long what was seen of a flow admits its packets: flow_admit() in bpf/flow.h. Pure."""

from __future__ import annotations

from socket import IPPROTO_TCP, IPPROTO_UDP

from vxlane.datapath.records import Settings

_BACKEND_AGE = 900_000_000
"""ns; BACKEND_AGE of bpf/flow.h."""


def longest(settings: Settings, protocol: int, *, is_translated: bool) -> int:
    """The longest age of a flow's approval, ns."""
    if protocol == IPPROTO_TCP:
        return settings.revalidate
    if protocol == IPPROTO_UDP and is_translated:
        return min(settings.revalidate_datagram, _BACKEND_AGE)
    return settings.revalidate_datagram
