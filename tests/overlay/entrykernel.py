# SPDX-License-Identifier: Apache-2.0
"""Routes, neighbours and FDB entries in memory, behind the requests that netlink takes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from vxlane.host.entries import Entry, Key, Route, neighbour_key, route_key
from vxlane.host.events import Events
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import Request

_ADDS = {rt.RTM_NEWROUTE, rt.RTM_NEWNEIGH}


class EntryKernel:
    """Stands in for `NetlinkSocket`: keeps entries of one device by their keys."""

    def __init__(self, device: int) -> None:
        self._device = device
        self.bodies: dict[Key, bytes] = {}
        self.refused: set[Key] = set()
        """What can't be written: the device is down."""
        self.written: list[Key] = []

    def have(self, *entries: Entry) -> None:
        """Somebody makes entries."""
        for entry in entries:
            self.bodies[entry.key] = entry.put().body

    def write(self, requests: Sequence[Request]) -> list[int]:
        """See `NetlinkSocket`."""
        return [self._write(request) for request in requests]

    def dump(self, request: Request) -> list[bytes]:
        """See `NetlinkSocket`."""
        if request.kind == rt.RTM_GETROUTE:
            return [body for key, body in self.bodies.items() if isinstance(key, tuple)]
        kind = str if request.body[0] == socket.AF_BRIDGE else int
        return [body for key, body in self.bodies.items() if isinstance(key, kind)]

    def _write(self, request: Request) -> int:
        is_route = request.kind in {rt.RTM_NEWROUTE, rt.RTM_DELROUTE}
        key = route_key(request.body) if is_route else neighbour_key(request.body, self._device)
        assert key is not None
        if key in self.refused:
            return errno.ENETDOWN
        self.written.append(key)
        if request.kind in _ADDS:
            self.bodies[key] = request.body
            return 0
        return 0 if self.bodies.pop(key, None) else errno.ESRCH


def told(*entries: Entry, gone: Sequence[Entry] = (), doubtful: Sequence[Route] = ()) -> Events:
    """Events about entries."""
    now = {entry.key: entry for entry in entries} | {entry.key: None for entry in gone}
    return Events(entries=now, doubtful={route.key for route in doubtful})
