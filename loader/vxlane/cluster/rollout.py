# SPDX-License-Identifier: Apache-2.0
"""Nodes are switched one after the other, and each is watched before the next one's turn.

A node that is worse than before is set back to what it was, and nothing further is done.
"""

from __future__ import annotations

import datetime as dt
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from vxlane.cluster.health import Health, health_of, summary, worse
from vxlane.cluster.nodes import ClusterNode, node_of
from vxlane.errors import ConfigError, SourceError, VxlaneError
from vxlane.sources.http import HttpError
from vxlane.sources.steering import BYPASS, Wish

Say = Callable[[str], None]
Found = TypeVar("Found")

_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
"""With the others below 500 the server has done nothing, and would answer the same again."""


class Nodes(Protocol):
    """The part of `ClusterApi` that a rollout needs."""

    def nodes(self) -> list[Mapping[str, Any]]:
        """See `ClusterApi`."""

    def node(self, name: str) -> Mapping[str, Any]:
        """See `ClusterApi`."""

    def annotate(self, node: str, annotations: Mapping[str, str | None]) -> None:
        """See `ClusterApi`."""

    def pods_of(self, node: str) -> Iterator[Mapping[str, Any]]:
        """See `ClusterApi`."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a rollout waits; seconds."""

    soak: float = 60.0
    """For which a node is watched after its switch."""
    poll: float = 2.0
    answer: float = 120.0
    """Until an agent must have said that it follows, or the server must have answered."""


@dataclass(frozen=True, slots=True)
class Change:
    """One node's annotation is to say `wish`."""

    node: ClusterNode
    wish: Wish

    def __str__(self) -> str:
        before = self.node.wanted or "on, by default"
        return f"{self.node.name}: annotation {BYPASS}={self.wish} (now: {before})"


def read(api: Nodes) -> list[ClusterNode]:
    """All nodes by their names."""
    return sorted((node_of(thing, _now()) for thing in api.nodes()), key=lambda node: node.name)


def changes(
    nodes: Iterable[ClusterNode], wish: Wish, names: Iterable[str] | None = None
) -> list[Change]:
    """What makes these nodes say `wish`: those of these names in this order, or all that can be
    accelerated. ConfigError names a node that there is not, or whose agent does not report.
    """
    known = {node.name: node for node in nodes}
    if names is None:
        chosen = [node for node in known.values() if node.is_reporting and not node.obstacle]
    else:
        chosen = [_named(known, name) for name in names]
        for node in chosen:
            if wish.is_on and not node.is_reporting:
                reason = node.obstacle or "does the DaemonSet place a pod there?"
                raise ConfigError(f"no agent reports from node {node.name}: {reason}")
    return [Change(node, wish) for node in chosen if node.wish != wish]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _named(known: Mapping[str, ClusterNode], name: str) -> ClusterNode:
    if name not in known:
        raise ConfigError(f"there is no node {name!r}; there are {', '.join(known)}")
    return known[name]


class Rollout:
    """Carries changes out on one cluster; tells each step to `say`."""

    def __init__(self, api: Nodes, patience: Patience, say: Say) -> None:
        self._api = api
        self._patience = patience
        self._say = say

    def one_by_one(self, planned: Iterable[Change]) -> None:
        """Each change in turn. VxlaneError: a node was worse, or could not be watched, and is set
        back; those before stay.
        """
        for change in planned:
            before = self.ask(partial(self._health, change.node.name))
            try:
                self._annotate(change.node.name, str(change.wish))
                reasons = self._watched(before, change.node.name)
            except BaseException as error:
                # No node stays switched that nobody watches. A request that got no answer may have
                # been carried out.
                if not _is_refusal(error):
                    self._say(self._set_back(change))
                raise
            if reasons:
                raise VxlaneError(
                    f"{self._set_back(change)}, since {'; '.join(reasons)}; "
                    "'vxlane cluster rollback' switches all nodes off"
                )

    def at_once(
        self,
        planned: Iterable[Change],
        condition: Callable[[ClusterNode], bool] = lambda node: node.follows,
    ) -> None:
        """All changes now, then wait for the agents. VxlaneError names those that don't follow, or
        for which another `condition` does not hold.
        """
        names = {change.node.name for change in planned if change.node.is_reporting}
        for change in planned:
            try:
                self._annotate(change.node.name, str(change.wish))
            except HttpError as error:
                # Nodes come and go. What is to be off everywhere must not stop at one that went.
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                self._say(f"{change.node.name}: it is not there any more")
        self.wait_for(names, condition, "follow")

    def wait_for(
        self, names: set[str], condition: Callable[[ClusterNode], bool], what: str
    ) -> None:
        """Until it holds for all nodes of these names. VxlaneError names the others."""
        end = time.monotonic() + self._patience.answer
        while left := [
            node.name
            for node in self.ask(lambda: read(self._api), end)
            if node.name in names and not condition(node)
        ]:
            if time.monotonic() > end:
                raise VxlaneError(
                    f"these nodes' agents don't {what}: {', '.join(left)}; see their pods' logs"
                )
            time.sleep(self._patience.poll)

    def ask(self, question: Callable[[], Found], end: float | None = None) -> Found:
        """The server's answer, asked again until `end` if it gives none: it may be busy, or
        restart. SourceError: it gave none, or refuses.
        """
        if end is None:
            end = time.monotonic() + self._patience.answer
        is_told = False
        while True:
            try:
                return question()
            except SourceError as error:
                if _is_refusal(error) or time.monotonic() > end:
                    raise
                if not is_told:
                    self._say(f"asking again: {error}")
                is_told = True
            time.sleep(self._patience.poll)

    def _watched(self, before: Health, name: str) -> list[str]:
        """Why the node is worse within the time that it is watched; empty: it is not."""
        try:
            return self._followed(before, name) or self._soaked(before, name)
        except SourceError as error:
            return [f"it can't be watched: {error}"]

    def _followed(self, before: Health, name: str) -> list[str]:
        """Why its agent does not follow; empty: it does."""
        try:
            self.wait_for({name}, lambda node: node.follows, "follow")
        except SourceError:
            raise
        except VxlaneError:
            now = self.ask(lambda: self._health(name, before))
            return worse(before, now) or now.node.troubles or ["its agent does not follow"]
        return []

    def _soaked(self, before: Health, name: str) -> list[str]:
        """Why it is worse at some moment of the soak; empty: at none, the last one included."""
        end = time.monotonic() + self._patience.soak
        while True:
            now = self.ask(lambda: self._health(name, before))
            if reasons := worse(before, now):
                return reasons
            if time.monotonic() >= end:
                self._say(f"{name}: before: {summary(before)}; now: {summary(now)}")
                return []
            time.sleep(min(self._patience.poll, max(0.0, end - time.monotonic())))

    def _set_back(self, change: Change) -> str:
        """Write what the node's annotation said before; what has become of it, in words."""
        name, before = change.node.name, change.node.wanted
        word = shlex.quote(f"{BYPASS}-" if before is None else f"{BYPASS}={before}")
        stays = (
            f"node {name} stays {change.wish}, and "
            f"'kubectl annotate --overwrite node {name} {word}' sets it back"
        )
        try:
            self._annotate(name, before)
        except SourceError as error:
            return f"{stays} ({error})"
        except KeyboardInterrupt:
            self._say(stays)
            raise
        return f"node {name} is set back to {before or 'on'}"

    def _health(self, name: str, before: Health | None = None) -> Health:
        # Asked every two seconds: a list of all nodes each time would be a load for the server.
        return health_of(node_of(self._api.node(name), _now()), self._api.pods_of(name), before)

    def _annotate(self, name: str, word: str | None) -> None:
        # Said behind it: a terminal that has gone must not keep a node from being set back.
        self.ask(lambda: self._api.annotate(name, {BYPASS: word}))
        self._say(f"{name}: {BYPASS}={word}" if word else f"{name}: without {BYPASS}")


def _is_refusal(error: BaseException) -> bool:
    if not isinstance(error, HttpError) or error.status in _LATER:
        return False
    return error.status < HTTPStatus.INTERNAL_SERVER_ERROR
