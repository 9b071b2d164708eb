# SPDX-License-Identifier: Apache-2.0
"""Flow records by the hundred thousand, written straight into a node's map.

A million flows of real traffic would take minutes, and the first would be old when the last came.
What is written are copies of a record that the programs made, with other ports.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from vxlane.datapath import batches, syscall
from vxlane.datapath.records import SHAPES, Flow
from vxlane.errors import LabError

_UPDATE_BATCH = 26
"""BPF_MAP_UPDATE_BATCH, Linux 5.6."""
_AT_A_TIME = 4096
_PORTS = range(1, 9000)
"""Of both ends of the copies. No measurement uses one of these, so no packet meets a copy."""
_KEY, _VALUE = SHAPES["flows"]
_SIZES = ctypes.sizeof(_KEY), ctypes.sizeof(_VALUE)


def fill(pins: Path, local: IPv4Address, remote: IPv4Address, count: int) -> None:
    """Add `count` flows of UDP between the pod `local` and `remote` to the map pinned in `pins`.

    LabError: the two have no flow that could be copied.
    """
    descriptor = syscall.obj_get(pins / "flows")
    try:
        key, value = _model(descriptor, local, remote)
        for first in range(0, count, _AT_A_TIME):
            last = min(first + _AT_A_TIME, count)
            _put(descriptor, [_copy(key, value, number) for number in range(first, last)])
    finally:
        os.close(descriptor)


def known(pins: Path) -> int:
    """How many flows are in the map pinned in `pins`."""
    descriptor = syscall.obj_get(pins / "flows")
    try:
        return sum(page.count for page in batches.map_pages(descriptor, *_SIZES))
    finally:
        os.close(descriptor)


def _model(descriptor: int, local: IPv4Address, remote: IPv4Address) -> tuple[Any, Any]:
    """A record of the two, live as the programs left it."""
    for raw_key, raw_value in batches.map_entries(descriptor, *_SIZES):
        key, value = _KEY.from_buffer_copy(raw_key), _VALUE.from_buffer_copy(raw_value)
        flow = Flow.of(key, value)
        ends = flow.tuple.local, flow.tuple.remote, flow.tuple.protocol
        if ends == (local, remote, socket.IPPROTO_UDP) and (flow.seen_out or flow.seen_in):
            return key, value
    raise LabError(f"{local} has no flow of UDP with {remote} that could be copied")


def _copy(key: Any, value: Any, number: int) -> tuple[bytes, bytes]:
    key.low_port, key.high_port = (_PORTS[part] for part in divmod(number, len(_PORTS)))
    return bytes(key), bytes(value)


def _put(descriptor: int, entries: list[tuple[bytes, bytes]]) -> None:
    keys, values = (b"".join(parts) for parts in zip(*entries, strict=True))
    held = [ctypes.create_string_buffer(raw, len(raw)) for raw in (keys, values)]
    places = [ctypes.addressof(buffer) for buffer in held]
    request = struct.pack("=QQQQIIQQ", 0, 0, *places, len(entries), descriptor, 0, 0)
    with syscall.explained("write flows into their map", "is it as large as this lab's?"):
        syscall.call(_UPDATE_BATCH, ctypes.create_string_buffer(request, syscall.ATTR_SIZE))
