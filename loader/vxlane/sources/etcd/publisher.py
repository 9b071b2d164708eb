# SPDX-License-Identifier: Apache-2.0
"""Gets this node a subnet in etcd and keeps etcd's lease on it, in a thread of its own.

The thread reads this node's key when the node is announced, when the lease is due, and when someone
else changed the key. A lease is renewed as flannel does it: `margin` seconds before it ends, the
key is written again with a new lease. A key that was deleted is created again if it is still free,
because pods have addresses of that subnet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from vxlane.errors import ConfigError, SourceError
from vxlane.sources.etcd.access import config_key
from vxlane.sources.etcd.gateway import Gateway, Item
from vxlane.sources.etcd.schema import Pool, address_of, cidr_of, key_of, parse_pool, value_of
from vxlane.sources.follow import Reconciler, Timing
from vxlane.sources.model import Announcement

log = logging.getLogger(__name__)

_RACES = 10
"""Attempts to get a free subnet before another node does; flannel's number."""


@dataclass(frozen=True, slots=True)
class Term:
    """How long etcd's lease lasts, and how long before its end it is renewed, in seconds."""

    ttl: int = 24 * 3600
    margin: int = 3600


class Publisher:
    """Holds the subnet of the node that is announced.

    `complain` is called with the reason if it can't, and with "" when it can again.
    """

    def __init__(
        self,
        gateway: Gateway,
        prefix: str,
        *,
        previous: IPv4Network | None,
        term: Term,
        timing: Timing,
        complain: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._subnets = f"{prefix}/subnets/"
        self._previous = previous
        self._term = term
        self._own: Announcement | None = None
        self._held: IPv4Network | None = None
        self._spare = 0
        """A lease that no key is known to have; 0: there is none."""
        self._reconciler = Reconciler("lease", self._reconcile, complain=complain, timing=timing)

    def start(self) -> None:
        """Begin to hold a subnet, once a node is announced."""
        self._reconciler.start()

    def announce(self, own: Announcement) -> None:
        """Publish `own` with the subnet from now on."""
        self._own = own
        self._reconciler.request()

    @property
    def key(self) -> str:
        """Our key; empty: we hold none."""
        return self._subnets + key_of(self._held) if self._held else ""

    def seen(self, value: bytes | None) -> None:
        """The value that our key has now (None: it is gone). Wakes the thread if it is not ours."""
        if self._own and value != value_of(self._own):
            self._reconciler.request()

    def close(self) -> None:
        """Stop writing. The lease is not ended. May be called twice."""
        self._reconciler.close()

    def _reconcile(self) -> float:
        """Write our key if it is wrong. Returns seconds until it must be read again."""
        own = self._own
        assert own is not None, "a first request comes with the announcement"
        due: float | None
        for _ in range(_RACES):
            cidr = self._held or self._choose(own.address)
            item = self._gateway.get(self._subnets + key_of(cidr))
            if item is None:
                due = self._take(cidr, value_of(own))
            elif address_of(item.value) == own.address:
                due = self._renew(item, value_of(own))
            elif self._held is None:
                continue
            else:
                holder = address_of(item.value) or "a value that is no node"
                advice = "delete its key, or restart this node's pods and agent for another subnet"
                raise SourceError(f"its subnet {cidr} was taken by {holder}; {advice}")
            if due is not None:
                self._held = cidr
                return due
        raise SourceError(f"{_RACES} times another node was faster to a free subnet; trying again")

    def _choose(self, address: IPv4Address) -> IPv4Network:
        """In flannel's order: the subnet of our address, the previous one, any that is free."""
        pool = read_pool(self._gateway, self._prefix)
        taken = []
        for item in self._gateway.items(self._subnets)[1]:
            try:
                cidr = cidr_of(item.key)
            except ConfigError:
                continue
            if address_of(item.value) != address:
                taken.append(cidr)
            elif pool.holds(cidr):
                return cidr
            else:
                log.warning("our subnet %s no longer fits the network %s", cidr, pool.network)
                self._gateway.delete(item.key)
        if self._previous and pool.holds(self._previous) and self._previous not in taken:
            return self._previous
        return pool.choose(taken)

    def _take(self, cidr: IPv4Network, value: bytes) -> float | None:
        """Create our key; None if another node was faster."""
        if self._held:
            log.warning("etcd's lease of our subnet %s is gone; taking it again", cidr)
        lease, due = self._granted()
        if not self._gateway.create(self._subnets + key_of(cidr), value, lease=lease):
            return None
        self._spare = 0
        log.info("subnet %s is ours for %d s", cidr, due + self._term.margin)
        return due

    def _renew(self, item: Item, value: bytes) -> float:
        """Write our key if it says something else, and renew its lease if that is due."""
        if not item.lease:
            # A person made this reservation: it has no end and is not renewed.
            if item.value != value:
                self._gateway.put(item.key, value, lease=0)
            return self._term.ttl
        left = self._due(item.lease)
        if item.value == value and left > 0:
            return left
        lease, due = self._granted()
        self._gateway.put(item.key, value, lease=lease)
        self._spare = 0
        log.info("etcd's lease of %s renewed for %d s", item.key, due + self._term.margin)
        return due

    def _granted(self) -> tuple[int, float]:
        """A lease to write our key with, and the seconds until it is due.

        One that an attempt did not use is for the next attempt, so that failures leave none behind.
        It is not revoked: the write may have come through although its answer was lost, and with
        the lease etcd would delete our key.
        """
        if self._spare and (due := self._due(self._spare)) > 0:
            return self._spare, due
        self._spare = self._gateway.grant(self._term.ttl)
        return self._spare, self._term.ttl - self._term.margin

    def _due(self, lease: int) -> float:
        """Seconds until a lease is to be renewed. Not above 0: now, or it has ended."""
        return self._gateway.time_to_live(lease) - self._term.margin


def read_config(gateway: Gateway, prefix: str) -> bytes:
    """The network's config, a net-conf.json. SourceError: there is none yet."""
    key = config_key(prefix)
    item = gateway.get(key)
    if item is None:
        raise SourceError(f"etcd has no key {key}; put flannel's net-conf.json there")
    return item.value


def read_pool(gateway: Gateway, prefix: str) -> Pool:
    """The subnets of the network's config. SourceError: it is missing or wrong."""
    try:
        return parse_pool(read_config(gateway, prefix))
    except ConfigError as error:
        raise SourceError(f"etcd's {config_key(prefix)} {error}") from None
