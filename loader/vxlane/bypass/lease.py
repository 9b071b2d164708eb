# SPDX-License-Identifier: Apache-2.0
"""The programs' settings, the most important of which is the lease.

Owns the one entry of the map `settings`. While the lease holds, the maps are not older than a few
seconds; `heartbeat` renews it. When it has expired, because the agent is dead or hangs, the
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
from vxlane.mechanisms.concern import Judged
from vxlane.overlay.backend import OverlayState
from vxlane.util.tally import Withdrawal

LEASE = 3.0
"""Seconds for which the programs may use maps that no agent keeps. The kernel path follows a peer's
new MAC in 0.4 s. If an agent is killed and starts again in time, the bypass has no gap."""
_OPEN = tuple(
    f"tcp_timeout_{state}" for state in ("established", "unacknowledged", "close_wait", "fin_wait")
)
"""The states in conntrack of a connection that may still carry data: one side may have closed."""

_OPENING = "tcp_timeout_syn_recv"
"""That in which the ACK of a handshake is awaited, for a minute by default."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that a person chooses."""

    revalidate: float
    """Seconds."""
    is_enabled: bool = True


class Lease:
    """Renews the lease, and withdraws approvals by raising the epoch.

    The heartbeat renews it from its own thread, so a lock is held for every write.
    """

    def __init__(self, maps: Maps, terms: Terms, withdrawals: Counter[Withdrawal]) -> None:
        self._maps = maps
        self._terms = terms
        self._withdrawals = withdrawals
        # Rules may have changed while no agent watched, so everything is approved anew. Nor is it
        # known who listens to conntrack.
        unread = replace(maps.settings(), judged=True, may_drop=True, heard=True)
        self._settings = self._withdrawn(unread, Withdrawal.START)
        self._until = 0
        """ns, CLOCK_MONOTONIC."""
        self._may_renew = False
        """True from the first `apply` of this agent until `end` or `leave`."""
        self._lock = threading.Lock()

    @property
    def epoch(self) -> int:
        """The number of the current epoch. Approvals from other epochs do not count."""
        return self._settings.epoch

    @property
    def revalidate(self) -> int:
        """How long an approval of a TCP flow holds, in ns."""
        return self._settings.revalidate

    @property
    def is_enabled(self) -> bool:
        """Whether the bypass is wanted at all."""
        return self._terms.is_enabled

    @property
    def is_held(self) -> bool:
        """Whether the lease holds, so that the programs use the maps now."""
        return self._settings.lease_until > time.monotonic_ns()

    def apply(self, overlay: OverlayState) -> None:
        """Write all settings, which follow from `overlay` and from the kernel's timeouts."""
        # Well before conntrack forgets the flow, and takes its next packet for a new connection.
        stream = min(shortest_timeout(*_OPEN) / 3, shortest_timeout(_OPENING) / 2)
        datagram = shortest_timeout("udp_timeout", "udp_timeout_stream", "icmp_timeout") / 3
        with self._lock:
            self._may_renew = True
            # The lease of an earlier agent may still hold.
            until = max(self._until, self._settings.lease_until) if self.is_enabled else 0
            self._put(
                replace(
                    self._settings,
                    lease_until=until,
                    revalidate=_ns(min(self._terms.revalidate, stream)),
                    revalidate_datagram=_ns(min(self._terms.revalidate, datagram)),
                    address=overlay.address,
                    vtep_mac=overlay.vtep_mac,
                    has_direct=bool(overlay.direct_nics),
                    vtep=overlay.device,
                )
            )

    def renew(self, true_at: float) -> None:
        """Extend the lease: the maps were true at `true_at` (CLOCK_MONOTONIC, seconds)."""
        with self._lock:
            self._until = _ns(true_at + LEASE)
            if self._may_renew and self.is_enabled and self._until > self._settings.lease_until:
                self._put(replace(self._settings, lease_until=self._until))

    def end(self) -> None:
        """End the lease at once and for good, because nobody keeps the maps. Flow records stay."""
        with self._lock:
            if self._may_renew:
                self._put(replace(self._settings, lease_until=0))
            self._may_renew = False

    def leave(self) -> None:
        """Stop renewing. The lease holds for some seconds more, for the agent that takes over."""
        with self._lock:
            self._may_renew = False

    def flush(self, reason: Withdrawal) -> int:
        """Withdraw every approval at once. Returns the new epoch."""
        with self._lock:
            self._put(self._withdrawn(self._settings, reason))
            return self._settings.epoch

    def judge(self, judged: Judged) -> None:
        """Set whether all packets, those of translated flows, or the ACKs of handshakes are left to
        the kernel path.
        """
        with self._lock:
            settings = replace(
                self._settings,
                judged=judged.all,
                judged_nat=judged.translated,
                may_drop=judged.may_drop,
            )
            if settings != self._settings:
                self._put(settings)

    def hear(self, *, is_heard: bool) -> None:
        """Set whether somebody listens to what conntrack tells of changes."""
        with self._lock:
            if is_heard != self._settings.heard:
                self._put(replace(self._settings, heard=is_heard))

    def switch(self, overlay: OverlayState, *, is_enabled: bool) -> None:
        """Switch the bypass on or off, from now on."""
        self._terms = replace(self._terms, is_enabled=is_enabled)
        self.apply(overlay)

    def _put(self, settings: Settings) -> None:
        # Without a lease the programs do not see SYN and FIN. Recorded connections may have ended,
        # and their ports may be in use again.
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
