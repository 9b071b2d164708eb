# SPDX-License-Identifier: Apache-2.0
"""The table of nodes that a source keeps: written by its thread, read by the agent's."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Mapping
from ipaddress import IPv4Network

from vxlane.sources.model import Node, Problem
from vxlane.sources.snapshot import NOTHING_READ, Snapshot, agree

log = logging.getLogger(__name__)


class NodeTable:
    """The nodes as one source knows them. An eventfd tells the reader of changes.

    Entries are kept by the source's own key (a node's name, an etcd key), oldest first. Of two
    nodes in conflict the older one is kept, here and on every other node.
    """

    def __init__(self, own_name: str) -> None:
        self.changed = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._own_name = own_name
        self._lock = threading.Lock()
        self._entries: dict[str, Node | Problem] = {}
        self._network: IPv4Network | None = None
        self._read_at: float | None = None
        self._error = ""
        self._complaint = ""
        self.served = NOTHING_READ
        """See `NodeSource.start`."""
        self._settled = NOTHING_READ
        self._stale = False

    def replace(
        self, entries: Mapping[str, Node | Problem], *, network: IPv4Network | None = None
    ) -> None:
        """Take a full list, oldest node first. Nodes that are missing in it are gone."""
        with self._lock:
            if self._read_at is None or (entries, network) != (self._entries, self._network):
                self._entries, self._network = dict(entries), network
                self._tell()
            self._well()

    def put(self, key: str, entry: Node | Problem | None) -> None:
        """Take one change. None: the node is gone, or not in this network."""
        with self._lock:
            if self._entries.get(key) != entry:
                if entry is None:
                    del self._entries[key]
                else:
                    self._entries[key] = entry
                self._tell()
            self._well()

    def confirm(self) -> None:
        """Note that the server answers and the table is up to date."""
        with self._lock:
            self._well()

    def fail(self, error: str) -> None:
        """Note that the server can't be read now. The table stays as it is.

        Each new reason is logged: the first may be a passing one, such as "connection refused"
        while the server restarts, and a later one, such as "401", the lasting one.
        """
        with self._lock:
            if error != self._error:
                log.warning("nodes can't be followed, the last %s stay: %s", self._count(), error)
                self._error = error
                self._wake()

    def complain(self, reason: str) -> None:
        """Note why this node's own entry can't be written. "": it is written."""
        with self._lock:
            if reason != self._complaint:
                self._complaint = reason
                self._tell()

    def on_event(self) -> bool:
        """See `NodeSource`; always True, since the eventfd is written for changes only."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.changed)
        return True

    def snapshot(self) -> Snapshot:
        """See `NodeSource.nodes`; cheap while nothing changed."""
        with self._lock:
            if self._stale and self._read_at is not None:
                self._settled, self._stale = self._settle(), False
            return dataclasses.replace(self._settled, read_at=self._read_at, error=self._error)

    def close(self) -> None:
        """Close the eventfd; may be called twice, and before the source's thread has ended."""
        with self._lock:
            if self.changed >= 0:
                os.close(self.changed)
                self.changed = -1

    def _settle(self) -> Snapshot:
        nodes = [entry for entry in self._entries.values() if isinstance(entry, Node)]
        problems = [entry for entry in self._entries.values() if isinstance(entry, Problem)]
        settled = agree(
            _named_apart(nodes),
            self._own_name,
            problems=problems,
            network=self._network,
            previous=self.served if self._settled is NOTHING_READ else self._settled,
        )
        # Added after `agree`, which keeps the earlier entry of a node that is among the problems.
        about_us = [self._complaint] if self._complaint else []
        if not self._entries:
            about_us.append("the source's list of nodes is empty, not even this node is in it")
        more = tuple(Problem(self._own_name, reason) for reason in about_us)
        return dataclasses.replace(settled, problems=settled.problems + more)

    def _tell(self) -> None:
        self._stale = True
        self._wake()

    def _well(self) -> None:
        self._read_at = time.monotonic()
        if self._error:
            log.info("nodes are followed again: %s", self._count())
            self._error = ""
            self._wake()

    def _count(self) -> str:
        return f"{len(self._entries)} entries"

    def _wake(self) -> None:
        if self.changed >= 0:
            os.eventfd_write(self.changed, 1)


def _named_apart(nodes: list[Node]) -> list[Node]:
    """Give nodes of the same name different names. In etcd a node's name is its address, and a node
    may hold two subnets for a while.
    """
    names: set[str] = set()
    apart = []
    for node in nodes:
        is_second = node.name in names
        names.add(node.name)
        if is_second:
            node = dataclasses.replace(node, name=f"{node.name} ({node.pod_cidr})")  # noqa: PLW2901
        apart.append(node)
    return apart
