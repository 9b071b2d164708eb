# SPDX-License-Identifier: Apache-2.0
"""The settings that the programs go by: the lease above all.

Owns the one entry of the map `settings`. While the lease is renewed somebody keeps the maps true;
when it runs out (a dead agent, a hung one) the programs leave every packet to the kernel path.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Settings
from vxlane.host.conntrack import shortest_timeout
from vxlane.overlay.backend import OverlayState

LEASE = 30.0
RENEW_EVERY = 10.0
"""Both in seconds."""

_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE = (32768, 60999)


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the settings is for a person to say."""

    revalidate: float
    """Seconds."""
    is_enabled: bool = True


class Lease:
    """Renews the lease; withdraws approvals by raising the epoch."""

    def __init__(self, maps: Maps, terms: Terms) -> None:
        self._maps = maps
        self._terms = terms
        # Whatever changed in the rules while nobody watched: approve everything anew.
        self._settings = replace(maps.settings(), epoch=_after(maps.settings().epoch), judged=True)

    @property
    def epoch(self) -> int:
        """Approvals of other epochs don't count."""
        return self._settings.epoch

    @property
    def is_enabled(self) -> bool:
        """Whether the bypass is wanted at all."""
        return self._terms.is_enabled

    def renew(self, overlay: OverlayState) -> None:
        """Write all settings with a fresh lease (none, while the bypass is switched off)."""
        lowest, highest = _port_range()
        # Well before conntrack forgets the flow: it would take the next packet for a new one's.
        stream = shortest_timeout("tcp_timeout_established") / 3
        datagram = shortest_timeout("udp_timeout", "icmp_timeout") / 3
        self._settings = Settings(
            lease_until=_now_ns() + _ns(LEASE) if self.is_enabled else 0,
            revalidate=_ns(min(self._terms.revalidate, stream)),
            revalidate_datagram=_ns(min(self._terms.revalidate, datagram)),
            address=overlay.address,
            epoch=self._settings.epoch,
            port_min=lowest,
            port_max=highest,
            vtep_mac=overlay.vtep_mac,
            has_direct=bool(overlay.direct_nics),
            judged=self._settings.judged,
        )
        self._maps.put_settings(self._settings)

    def flush(self) -> int:
        """Withdraw every approval at once; the new epoch."""
        self._settings = replace(self._settings, epoch=_after(self._settings.epoch))
        self._maps.put_settings(self._settings)
        return self._settings.epoch

    def judge(self, *, all_pods: bool) -> None:
        """Leave every packet to the kernel path, or no longer."""
        if self._settings.judged != all_pods:
            self._settings = replace(self._settings, judged=all_pods)
            self._maps.put_settings(self._settings)

    def switch(self, overlay: OverlayState, *, is_enabled: bool) -> None:
        """Let the programs bypass, or stand aside, from now on."""
        self._terms = replace(self._terms, is_enabled=is_enabled)
        self.renew(overlay)


def _after(epoch: int) -> int:
    return (epoch + 1) & 0xFFFFFFFF


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


def _port_range() -> tuple[int, int]:
    """The range that a VXLAN device takes its source ports from, when it has none of its own."""
    try:
        lowest, highest = _PORT_RANGE.read_text().split()
    except OSError:
        return _DEFAULT_RANGE
    return int(lowest), int(highest)
