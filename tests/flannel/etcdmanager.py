# SPDX-License-Identifier: Apache-2.0
"""flannel's subnet manager for etcd v3, as pkg/subnet/etcd of v0.28 is written.

Speaks to etcd's JSON gateway, and shares no code with vxlane: two programs that read flannel's
rules differently show it in a test.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import urlsplit

from leases import Event, Lease, LeaseWatcher, NetworkConfig, NotNowError, parse_config

TTL = 24 * 3600
_RACES = 10
_CANDIDATES = 100


class CompactedError(Exception):
    """The revision to watch from is no longer in etcd's history."""


class EtcdManager:
    """The etcd side of a daemon (`LocalManager`)."""

    def __init__(self, endpoint: str, prefix: str) -> None:
        self._endpoint = endpoint
        self._prefix = prefix
        self._subnets = f"{prefix}/subnets/"

    def config(self) -> NetworkConfig:
        """See `Manager`."""
        found = self._call("kv/range", key=_coded(f"{self._prefix}/config")).get("kvs")
        if not found:
            raise NotNowError("failed to retrieve network config: key not found")
        try:
            return parse_config(json.loads(_decoded(found[0]["value"])))
        except (ValueError, KeyError, TypeError) as error:
            raise NotNowError(f"couldn't parse network config: {error}") from error

    def stored_mac(self) -> str:
        """See `Manager`."""
        return ""

    def acquire(self, attrs: dict[str, Any], previous: IPv4Network | None) -> Lease:
        """tryAcquireLease: the subnet of our PublicIP, the previous one, any of 100 free ones."""
        config = self.config()
        for _ in range(_RACES):
            leases, _, own_lease_ids = self._list()
            mine = next((it for it in leases if it.public_ip == attrs["PublicIP"]), None)
            if mine and config.fits(mine.subnet):
                # A reservation has no lease, and gets none.
                lease_id = self._grant() if own_lease_ids[mine.subnet] else "0"
                self._put(Lease(mine.subnet, attrs), lease_id)
                return Lease(mine.subnet, attrs)
            if mine:
                self._call("kv/deleterange", key=_coded(self._key(mine.subnet)))
            taken = [it.subnet for it in leases if it is not mine]
            if previous and previous not in taken and config.fits(previous):
                subnet = previous
            else:
                subnet = _free(config, taken)
            if self._create(Lease(subnet, attrs)):
                return Lease(subnet, attrs)
        raise NotNowError("Max retries reached trying to acquire a subnet")

    def watch(self, own: Lease, tell: Callable[[Event], None]) -> str:
        """See `Manager`. A watch that broke goes on where it was, as etcd's client has it."""
        watcher, revision = LeaseWatcher(own.subnet), 0
        while True:
            try:
                if not revision:
                    leases, revision, _ = self._list()
                    for event in watcher.reset(leases):
                        tell(event)
                for number, kind, lease in self._watched(revision + 1):
                    revision = number
                    if (kind, lease.subnet) == ("removed", own.subnet):
                        return "Lease has been revoked. Shutting down daemon."
                    for event in watcher.update(kind, lease):
                        tell(event)
            except CompactedError:
                revision = 0
            except (NotNowError, OSError, http.client.HTTPException):
                time.sleep(1)

    def _list(self) -> tuple[list[Lease], int, dict[IPv4Network, str]]:
        """All leases, the revision, and the etcd lease that each key hangs on."""
        end = self._subnets[:-1] + chr(ord(self._subnets[-1]) + 1)
        answer = self._call("kv/range", key=_coded(self._subnets), range_end=_coded(end))
        leases, ids = [], {}
        for kv in answer.get("kvs", ()):
            lease = _lease(kv)
            leases.append(lease)
            ids[lease.subnet] = kv.get("lease", "")
        return leases, int(answer["header"]["revision"]), ids

    def _watched(self, revision: int) -> Iterator[tuple[int, str, Lease]]:
        """Changes from `revision` on, each with its own."""
        end = self._subnets[:-1] + chr(ord(self._subnets[-1]) + 1)
        request = {"key": _coded(self._subnets), "range_end": _coded(end)}
        body = json.dumps({"create_request": {**request, "start_revision": str(revision)}})
        server = urlsplit(self._endpoint)
        connection = http.client.HTTPConnection(str(server.hostname), server.port or 2379)
        connection.request("POST", "/v3/watch", body)
        for line in connection.getresponse():
            result = json.loads(line)["result"]
            if int(result.get("compact_revision", 0)):
                raise CompactedError
            for event in result.get("events", ()):
                kind = "removed" if event.get("type") == "DELETE" else "added"
                yield int(event["kv"]["mod_revision"]), kind, _lease(event["kv"])
        # An end without an error is one all the same.
        raise NotNowError("etcd ended the watch")

    def _grant(self) -> str:
        return str(self._call("lease/grant", TTL=str(TTL))["ID"])

    def _put(self, lease: Lease, lease_id: str) -> None:
        self._call("kv/put", **self._entry(lease, lease_id))

    def _create(self, lease: Lease) -> bool:
        absent = {"key": _coded(self._key(lease.subnet)), "target": "VERSION", "version": "0"}
        write = {"request_put": self._entry(lease, self._grant())}
        return bool(self._call("kv/txn", compare=[absent], success=[write]).get("succeeded"))

    def _entry(self, lease: Lease, lease_id: str) -> dict[str, str]:
        value = json.dumps(lease.attrs, separators=(",", ":"))
        return {
            "key": _coded(self._key(lease.subnet)),
            "value": _coded(value),
            "lease": lease_id,
        }

    def _key(self, subnet: IPv4Network) -> str:
        return f"{self._subnets}{str(subnet).replace('/', '-')}"

    def _call(self, path: str, **request: Any) -> dict[str, Any]:
        body = json.dumps(request).encode()
        try:
            with urllib.request.urlopen(f"{self._endpoint}/v3/{path}", body, timeout=5) as answer:
                document: dict[str, Any] = json.load(answer)
                return document
        except (urllib.error.URLError, OSError) as error:
            raise NotNowError(f"etcd: {error}") from error


def _lease(kv: dict[str, Any]) -> Lease:
    key, value = _decoded(kv["key"]), _decoded(kv.get("value", ""))
    address = key.rpartition("/")[2].partition("&")[0]
    return Lease(IPv4Network(address.replace("-", "/")), json.loads(value or "{}"))


def _free(config: NetworkConfig, taken: list[IPv4Network]) -> IPv4Network:
    found: list[IPv4Network] = []
    for subnet in config.network.subnets(new_prefix=config.length):
        if config.fits(subnet) and not any(subnet.overlaps(other) for other in taken):
            found.append(subnet)
        if len(found) == _CANDIDATES:
            break
    if not found:
        raise NotNowError("out of subnets")
    return random.choice(found)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
