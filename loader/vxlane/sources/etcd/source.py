# SPDX-License-Identifier: Apache-2.0
"""The nodes that flannel keeps in etcd v3: a `NodeSource`.

It has two threads. One reads: all subnets, then a watch, which is resumed after the last revision
seen. Where etcd has compacted that revision away, all is read again. The other thread holds this
node's own subnet.
"""

from __future__ import annotations

import logging
from ipaddress import IPv4Address, IPv4Network

from vxlane.sources.etcd.access import EtcdAccess
from vxlane.sources.etcd.gateway import CompactedError, Event, Gateway
from vxlane.sources.etcd.publisher import Publisher, Term, read_config, read_pool
from vxlane.sources.etcd.schema import entry
from vxlane.sources.follow import Follower, Timing
from vxlane.sources.http import SilenceError
from vxlane.sources.model import Announcement
from vxlane.sources.snapshot import NOTHING_READ, Snapshot
from vxlane.sources.steering import NoCluster
from vxlane.sources.table import NodeTable

log = logging.getLogger(__name__)

ETCD_TIMING = Timing(silence=240.0)
"""etcd has no bookmarks, so silence is normal, and TCP keepalive notices a dead connection sooner.
But etcd forgets a user's token after 300 s without use, and a new one costs it a password hash."""
DAY = Term()


class EtcdSource:
    """Follows all subnets; holds one for the node with `own_address` once it is announced.

    `previous` is the subnet that subnet.env says this node had: it gets it back if it is free.
    """

    def __init__(
        self,
        access: EtcdAccess,
        own_address: IPv4Address,
        *,
        previous: IPv4Network | None = None,
        term: Term = DAY,
        timing: Timing = ETCD_TIMING,
    ) -> None:
        self._prefix = access.prefix.rstrip("/")
        self._subnets = f"{self._prefix}/subnets/"
        self._gateway = Gateway(access, timing)
        self._table = NodeTable(str(own_address))
        self._revision = 0
        self._publisher = Publisher(
            self._gateway,
            self._prefix,
            previous=previous,
            term=term,
            timing=timing,
            complain=self._table.complain,
        )
        self._follower = Follower("nodes", self._round, failed=self._table.fail, timing=timing)
        self.changed = self._table.changed
        self.cluster = NoCluster()

    def start(self, served: Snapshot = NOTHING_READ) -> None:
        """See `NodeSource`."""
        self._table.served = served
        self._follower.start()
        self._publisher.start()

    def on_event(self) -> bool:
        """See `NodeSource`."""
        return self._table.on_event()

    def nodes(self) -> Snapshot:
        """See `NodeSource`."""
        return self._table.snapshot()

    def announce(self, own: Announcement) -> None:
        """Get this node a subnet, and keep its key and lease."""
        self._publisher.announce(own)

    def ready(self) -> None:
        """Does nothing: in etcd no reader waits for it."""

    def chosen_address(self) -> IPv4Address | None:
        """None: this node is known by the address that it chose."""
        return None

    def close(self) -> None:
        """See `NodeSource`. The lease runs on: a restarted agent finds it."""
        self.changed = -1
        self._gateway.close()
        self._follower.close()
        self._publisher.close()
        self._table.close()

    def _round(self) -> None:
        if not self._revision:
            self._read()
        try:
            with self._gateway.watch(self._subnets, self._revision + 1) as events:
                self._table.confirm()
                for event in events:
                    self._apply(event)
        except SilenceError:
            return
        except CompactedError as error:
            log.info("%s: reading all subnets", error)
            self._revision = 0

    def _read(self) -> None:
        network = read_pool(self._gateway, self._prefix).network
        revision, items = self._gateway.items(self._subnets)
        items.sort(key=lambda item: item.created)
        self._table.replace(
            {item.key: entry(item.key, item.value) for item in items}, network=network
        )
        self._revision = revision
        if self._publisher.key:
            values = {item.key: item.value for item in items}
            self._publisher.seen(values.get(self._publisher.key))

    def _apply(self, event: Event) -> None:
        item = event.item
        self._table.put(event.key, entry(item.key, item.value) if item else None)
        if event.key == self._publisher.key:
            self._publisher.seen(item.value if item else None)
        self._revision = event.revision


def network_config(access: EtcdAccess, *, timing: Timing = ETCD_TIMING) -> str:
    """The network's config in etcd, in the form of net-conf.json. SourceError: there is none yet,
    or it can't be read now.
    """
    return read_config(Gateway(access, timing), access.prefix.rstrip("/")).decode(errors="replace")
