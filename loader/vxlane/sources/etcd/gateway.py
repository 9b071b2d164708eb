# SPDX-License-Identifier: Apache-2.0
"""The few calls of etcd v3 that a node's agent makes, through its JSON gateway.

Why the gateway (/v3/..., on by default since etcd 3.4, same port) and not gRPC? It needs only HTTP;
grpcio is 15 MB of binary and protobuf classes for seven small messages. Its limits:
--enable-grpc-gateway=false turns it off, and older etcds name it otherwise. A certificate's common
name can't be the user: an etcd with both client certificates and its own authentication refuses
certificates with a common name there. Keys and values are base64, 64-bit integers strings.

Does not know flannel.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vxlane.errors import SourceError
from vxlane.sources.etcd.access import EtcdAccess
from vxlane.sources.follow import Timing
from vxlane.sources.http import HttpClient, HttpError
from vxlane.sources.stream import lines, members


@dataclass(frozen=True, slots=True)
class Item:
    """One key as it stood at some revision."""

    key: str
    value: bytes
    lease: int = 0
    """0: none, the key stays until it is deleted."""
    created: int = 0
    """The revision in which it was created."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one key."""

    key: str
    item: Item | None
    """None: the key was deleted, or its lease ran out."""
    revision: int


_ADVICE = {
    "answered 404": "start etcd 3.4 or later without --enable-grpc-gateway=false",
    "CommonName": "give a user, a password, and a certificate without a common name",
}
"""Part of etcd's error message -> advice."""
_NO_TOKEN = ("user name is empty", "invalid auth token", "revision of auth store is old")
"""Parts of etcd's messages for want of a token that counts. A token ends with the member that gave
it and after five minutes without use; a JWT with each change of a user or a role. etcd's own client
gets a new one for the same three, and takes an etcd without authentication as it is.
"""


class CompactedError(SourceError):
    """The revision to watch from is not in etcd's history: it was compacted away, or etcd was
    restored to a state before it.
    """


class Gateway:
    """Reads, writes and watches keys of one etcd cluster."""

    def __init__(self, access: EtcdAccess, timing: Timing) -> None:
        self._access = access
        self._silence = timing.silence
        self._token = ""
        self._client = HttpClient(
            access.endpoints, tls=access.tls, headers=self._headers, timeout=timing.timeout
        )

    def items(self, prefix: str) -> tuple[int, list[Item]]:
        """The revision of the store, and all keys below `prefix` at that revision."""
        revision, found = 0, []
        body = _body({"key": _coded(prefix), "range_end": _coded(_end(prefix))})
        with self._authorized("/v3/kv/range", body) as blocks:
            for key, value in members(blocks, "kvs"):
                if key == "kvs":
                    found.append(_item(value))
                elif key == "header":
                    revision = int(value["revision"])
        if not revision:
            raise SourceError("what was asked for all keys answered with no list of them")
        return revision, found

    def get(self, key: str) -> Item | None:
        """The key, or None if it does not exist."""
        found = self._call("/v3/kv/range", {"key": _coded(key)}).get("kvs")
        return _item(found[0]) if found else None

    def put(self, key: str, value: bytes, *, lease: int) -> None:
        """Write a key, whether it exists or not."""
        self._call("/v3/kv/put", _put(key, value, lease))

    def create(self, key: str, value: bytes, *, lease: int) -> bool:
        """Write a key unless it exists. False: it exists."""
        absent = {"key": _coded(key), "target": "VERSION", "version": "0"}
        write = {"request_put": _put(key, value, lease)}
        answer = self._call("/v3/kv/txn", {"compare": [absent], "success": [write]})
        return bool(answer.get("succeeded"))

    def delete(self, key: str) -> None:
        """Delete a key, if it exists."""
        self._call("/v3/kv/deleterange", {"key": _coded(key)})

    def grant(self, seconds: int) -> int:
        """Get a new lease of so many seconds. Returns its ID."""
        return int(self._call("/v3/lease/grant", {"TTL": str(seconds)})["ID"])

    def time_to_live(self, lease: int) -> int:
        """Seconds that a lease has left; -1: it has ended."""
        # The gateway leaves out what is 0.
        return int(self._call("/v3/lease/timetolive", {"ID": str(lease)}).get("TTL", 0))

    @contextlib.contextmanager
    def watch(self, prefix: str, revision: int) -> Iterator[Iterator[Event]]:
        """Inside the with, iterate over all changes below `prefix` from `revision` on."""
        request = {
            "key": _coded(prefix),
            "range_end": _coded(_end(prefix)),
            "start_revision": str(revision),
        }
        body = _body({"create_request": request})
        if self._access.username:
            # To a watch with an expired token etcd answers "permission denied", as if the right to
            # read were missing. To a call it answers correctly, and `_authorized` gets a new token.
            self.get(prefix)
        with self._authorized("/v3/watch", body, silence=self._silence) as blocks:
            yield _events(lines(blocks), revision - 1)

    def close(self) -> None:
        """End every call that is under way."""
        self._client.close()

    def _call(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._authorized(path, _body(request)) as blocks:
            answer: dict[str, Any] = dict(members(blocks, ""))
        return answer

    @contextlib.contextmanager
    def _authorized(
        self, path: str, body: bytes, *, silence: float | None = None
    ) -> Iterator[Iterator[bytes]]:
        with contextlib.ExitStack() as stack:
            try:
                blocks = stack.enter_context(self._post(path, body, silence=silence))
            except HttpError as error:
                if not self._access.username or not any(it in str(error) for it in _NO_TOKEN):
                    raise
                self._authenticate()
                blocks = stack.enter_context(self._post(path, body, silence=silence))
            yield blocks

    def _authenticate(self) -> None:
        self._token = ""
        request = {"name": self._access.username, "password": self._access.password}
        with self._post("/v3/auth/authenticate", _body(request)) as blocks:
            self._token = dict(members(blocks, ""))["token"]

    @contextlib.contextmanager
    def _post(
        self, path: str, body: bytes, *, silence: float | None = None
    ) -> Iterator[Iterator[bytes]]:
        try:
            with self._client.stream("POST", path, body=body, silence=silence) as blocks:
                yield blocks
        except HttpError as error:
            for words, advice in _ADVICE.items():
                if words in str(error):
                    raise SourceError(f"{error}; {advice}") from error
            raise

    def _headers(self) -> Mapping[str, str]:
        # hasleader: a member that is cut off from the others ends our watches. Without it they
        # would stay open on a state that no longer changes.
        headers = {"Grpc-Metadata-hasleader": "true"}
        return headers | ({"Authorization": self._token} if self._token else {})


def _events(answers: Iterator[Mapping[str, Any]], seen: int) -> Iterator[Event]:
    """`seen`: the last revision that is known."""
    for answer in answers:
        if "error" in answer:
            raise SourceError(f"etcd ended the watch: {answer['error'].get('message')}")
        result = answer["result"]
        if int(result.get("compact_revision") or 0):
            raise CompactedError(f"etcd compacted up to revision {result['compact_revision']}")
        # etcd accepts a watch from a revision that it has yet to reach, and is silent until then.
        stands_at = int(result["header"]["revision"])
        if stands_at < seen:
            raise CompactedError(f"etcd stands at revision {stands_at}, before {seen}: restored?")
        if result.get("canceled"):
            raise SourceError(f"etcd ended the watch: {result.get('cancel_reason') or 'no reason'}")
        for event in result.get("events", ()):
            item = _item(event["kv"])
            deleted = event.get("type") == "DELETE"
            revision = int(event["kv"]["mod_revision"])
            yield Event(item.key, None if deleted else item, revision)


def _item(kv: Mapping[str, Any]) -> Item:
    return Item(
        key=base64.b64decode(kv["key"]).decode(errors="replace"),
        value=base64.b64decode(kv.get("value", "")),
        lease=int(kv.get("lease") or 0),
        created=int(kv.get("create_revision") or 0),
    )


def _put(key: str, value: bytes, lease: int) -> dict[str, str]:
    return {"key": _coded(key), "value": base64.b64encode(value).decode(), "lease": str(lease)}


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _end(prefix: str) -> str:
    """The first key after all that begin with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _body(request: Mapping[str, Any]) -> bytes:
    return json.dumps(request).encode()
