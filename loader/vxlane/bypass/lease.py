# SPDX-License-Identifier: Apache-2.0
"""The settings that the programs go by: the lease above all.

Owns the one entry of the map `settings`. While the lease holds, the maps are true up to a few
seconds; see `heartbeat` for who renews it. When it has run out (a dead agent, a hung one) the
programs leave every packet to the kernel path.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, replace

from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Settings
from vxlane.host.conntrack import shortest_timeout
from vxlane.overlay.backend import OverlayState
from vxlane.util.tally import Withdrawal

LEASE = 3.0
"""Seconds for which packets may go by maps that no agent keeps. The kernel path follows a peer's
new MAC in 0.4 s. An agent that was killed and starts again in time leaves no gap in the bypass."""
_OPEN = tuple(
    f"tcp_timeout_{state}" for state in ("established", "unacknowledged", "close_wait", "fin_wait")
)
"""What conntrack may take a connection for that still carries data: one side may have ended."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the settings is for a person to say."""

    revalidate: float
    """Seconds."""
    is_enabled: bool = True


class Lease:
    """Renews the lease; withdraws approvals by raising the epoch.

    The heartbeat renews from its own thread, so every write is made under a lock.
    """

    def __init__(self, maps: Maps, terms: Terms, withdrawals: Counter[Withdrawal]) -> None:
        self._maps = maps
        self._terms = terms
        self._withdrawals = withdrawals
        # Whatever changed in the rules while nobody watched: approve everything anew.
        self._settings = self._withdrawn(replace(maps.settings(), judged=True), Withdrawal.START)
        self._until = 0
        """ns, CLOCK_MONOTONIC."""
        self._may_renew = False
        """Not before the settings are this agent's, and not after its end."""
        self._lock = threading.Lock()

    @property
    def epoch(self) -> int:
        """Approvals of other epochs don't count."""
        return self._settings.epoch

    @property
    def revalidate(self) -> int:
        """How long an approval of a TCP flow holds, ns."""
        return self._settings.revalidate

    @property
    def is_enabled(self) -> bool:
        """Whether the bypass is wanted at all."""
        return self._terms.is_enabled

    @property
    def is_held(self) -> bool:
        """Whether the programs go by the maps now."""
        return self._settings.lease_until > time.monotonic_ns()

    def apply(self, overlay: OverlayState) -> None:
        """Write all settings, as they follow from `overlay` and the kernel's own."""
        # Well before conntrack forgets the flow: it would take the next packet for a new one's.
        stream = shortest_timeout(*_OPEN) / 3
        datagram = shortest_timeout("udp_timeout", "udp_timeout_stream", "icmp_timeout") / 3
        with self._lock:
            self._may_renew = True
            self._put(
                Settings(
                    # Of an agent before this one some of the lease may be left.
                    lease_until=max(self._until, self._settings.lease_until)
                    if self.is_enabled
                    else 0,
                    revalidate=_ns(min(self._terms.revalidate, stream)),
                    revalidate_datagram=_ns(min(self._terms.revalidate, datagram)),
                    address=overlay.address,
                    epoch=self._settings.epoch,
                    vtep_mac=overlay.vtep_mac,
                    has_direct=bool(overlay.direct_nics),
                    judged=self._settings.judged,
                    judged_nat=self._settings.judged_nat,
                    vtep=overlay.device,
                )
            )

    def renew(self, true_at: float) -> None:
        """The maps were true at `true_at`, seconds of CLOCK_MONOTONIC."""
        with self._lock:
            self._until = _ns(true_at + LEASE)
            if self._may_renew and self.is_enabled and self._until > self._settings.lease_until:
                self._put(replace(self._settings, lease_until=self._until))

    def end(self) -> None:
        """End it at once, for good: from here on nobody keeps the maps. Flow records stay."""
        with self._lock:
            if self._may_renew:
                self._put(replace(self._settings, lease_until=0))
            self._may_renew = False

    def leave(self) -> None:
        """Renew it no more. It holds for some seconds, as after a kill: for who takes over now."""
        with self._lock:
            self._may_renew = False

    def flush(self, reason: Withdrawal) -> int:
        """Withdraw every approval at once; the new epoch."""
        with self._lock:
            self._put(self._withdrawn(self._settings, reason))
            return self._settings.epoch

    def judge(self, *, all_pods: bool, translated: bool) -> None:
        """Leave every packet to the kernel path, or those of translated flows, or no longer."""
        with self._lock:
            settings = replace(self._settings, judged=all_pods, judged_nat=translated)
            if settings != self._settings:
                self._put(settings)

    def switch(self, overlay: OverlayState, *, is_enabled: bool) -> None:
        """Switch the bypass on or off, from now on."""
        self._terms = replace(self._terms, is_enabled=is_enabled)
        self.apply(overlay)

    def _put(self, settings: Settings) -> None:
        # Without a lease the programs let SYN and FIN pass unseen: what is recorded may be of
        # connections that have ended, and their ports may be others' by now.
        if self._settings.lease_until < _now() < settings.lease_until:
            settings = self._withdrawn(settings, Withdrawal.LAPSE)
        self._maps.put_settings(settings)
        self._settings = settings

    def _withdrawn(self, settings: Settings, reason: Withdrawal) -> Settings:
        """The settings of the next epoch."""
        self._withdrawals[reason] += 1
        return replace(settings, epoch=(settings.epoch + 1) & 0xFFFFFFFF)


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
