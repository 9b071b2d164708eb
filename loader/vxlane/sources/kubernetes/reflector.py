# SPDX-License-Identifier: Apache-2.0
"""Keeps a node table equal to the cluster's nodes: list, watch, and recovery from either's failure.

One `round` brings the table up to date and follows until the stream ends. Changes between two
rounds are not lost: the next round resumes after the last resourceVersion. If the server does not
know that version any more (410 Gone), the whole set is read again and replaces the old one, so that
deleted nodes disappear. Objects of 15 kB are reduced to an entry one by one as they arrive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from vxlane.errors import SourceError
from vxlane.sources.http import HttpError, SilenceError
from vxlane.sources.kubernetes.annotations import annotations_of, name_of
from vxlane.sources.kubernetes.api import INITIAL_END, NodesApi
from vxlane.sources.model import Node, Problem
from vxlane.sources.table import NodeTable

log = logging.getLogger(__name__)

Entry = Node | Problem | None
Slim = Callable[[Mapping[str, Any]], Entry]

# How a server that does not know sendInitialEvents refuses its parameters.
_NO_INITIAL_EVENTS = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}


class Reflector:
    """Follows the nodes of one API server into `table`; `slim` keeps what is needed of each."""

    def __init__(self, api: NodesApi, table: NodeTable, slim: Slim) -> None:
        self._api = api
        self._table = table
        self._slim = slim
        self._version = ""
        # "0": the state that the server has in memory is enough. It may be some seconds old, so
        # after a newer state, or a 410, the newest is asked for.
        self._list_from = "0"
        self._streams_initial_events = True
        self._has_heard = False
        """Whether the watch of now has brought an event or a bookmark."""

    def round(self) -> None:
        """Bring the table up to date and follow it until the stream ends; see `Follower`."""
        try:
            if self._version:
                self._resume()
            else:
                self._begin()
        except SilenceError:
            # No bookmark in its time: the connection may be half open. Resume on another one.
            return

    def _resume(self) -> None:
        try:
            self._watch(self._version)
        except HttpError as error:
            if error.status != HTTPStatus.GONE:
                raise
            log.info("the server forgot resourceVersion %s: reading all nodes", self._version)
            self._version = ""
            self._begin()
        except SilenceError:
            if not self._has_heard:
                # A server that was restored has yet to reach the version, and is silent until then
                # (kubernetes/kubernetes#107457).
                log.info("not a word since resourceVersion %s: reading all nodes", self._version)
                self._version = ""
            raise

    def _begin(self) -> None:
        """Read all nodes and follow: in one stream, or in two steps with an older server."""
        if self._streams_initial_events:
            try:
                self._watch("")
            except HttpError as error:
                if error.status not in _NO_INITIAL_EVENTS:
                    raise
                self._streams_initial_events = False
            except SilenceError:
                # A server that ignores the parameters never sends the closing bookmark.
                self._streams_initial_events = bool(self._version)
        if not self._version:
            self._list()
            self._watch(self._version)

    def _list(self) -> None:
        found = _Gathered()
        version = ""
        for key, value in self._api.pages(version=self._list_from):
            if key == "items":
                found.put(value, self._slim(value))
            else:
                version = str(value.get("resourceVersion") or "")
        if not version:
            raise SourceError("what was asked for all nodes answered with no list of them")
        self._replace(found, version)

    def _watch(self, version: str) -> None:
        self._has_heard = False
        with self._api.watch(version) as events:
            if version:
                self._table.confirm()
            else:
                self._gather(events)
            for event in events:
                self._apply(event)

    def _gather(self, events: Iterator[Mapping[str, Any]]) -> None:
        """Take the initial events. They come in any order, so a watch can be resumed only from the
        closing bookmark's version, not from theirs.
        """
        found = _Gathered()
        for event in events:
            thing = event["object"]
            if event["type"] != "BOOKMARK":
                found.put(thing, None if event["type"] == "DELETED" else self._slim(thing))
            elif annotations_of(thing).get(INITIAL_END) == "true":
                self._replace(found, _version_of(thing))
                return

    def _apply(self, event: Mapping[str, Any]) -> None:
        thing = event["object"]
        self._has_heard = True
        if event["type"] == "BOOKMARK":
            self._table.confirm()
        else:
            gone = event["type"] == "DELETED"
            self._table.put(name_of(thing), None if gone else self._slim(thing))
        self._version = _version_of(thing)

    def _replace(self, found: _Gathered, version: str) -> None:
        self._table.replace(found.oldest_first())
        self._version = version
        self._list_from = ""


class _Gathered:
    """The entries of a full read, with the age of each node."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, Node | Problem]] = {}

    def put(self, thing: Mapping[str, Any], entry: Entry) -> None:
        name = name_of(thing)
        if entry is None:
            self._found.pop(name, None)
        else:
            self._found[name] = str(thing["metadata"].get("creationTimestamp") or ""), entry

    def oldest_first(self) -> dict[str, Node | Problem]:
        ordered = sorted(self._found.items(), key=lambda item: (item[1][0], item[0]))
        return {name: entry for name, (_, entry) in ordered}


def _version_of(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"]["resourceVersion"])
