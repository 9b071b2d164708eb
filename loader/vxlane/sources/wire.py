# SPDX-License-Identifier: Apache-2.0
"""Reads and writes a flannel node's BackendData, in the exact bytes that flannel uses.

Pure. The form is flannel's pkg/backend/vxlan (vxlanLeaseAttrs): Go's json.Marshal of a struct.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vxlane.errors import ConfigError
from vxlane.sources.model import Announcement, Backend, derived_mac, parse_mac
from vxlane.util.jsontext import parse_json

_KEYS = frozenset(
    {"backend", "enableipv4", "enableipv6", "enablenftables"}
    | {"network", "networks", "subnetlen", "subnetmin", "subnetmax"}
    | {"ipv6network", "ipv6networks", "ipv6subnetlen", "ipv6subnetmin", "ipv6subnetmax"}
)
_BACKEND_KEYS = frozenset(
    {"type", "vni", "port", "mtu", "gbp", "learning", "directrouting"}
    | {"name", "macprefix", "dnsserverlist"}  # of nodes with Windows, which read the same file
)


def backend_data(own: Announcement) -> str:
    """The BackendData that `own` publishes.

    flannel does not parse what it stored. It trims `"}`, cuts at `:"`, and must find exactly two
    pieces. So the JSON is compact, VNI first, VtepMAC last, without any other member. Otherwise a
    flanneld that takes the node back finds no MAC and makes a new one, which every peer must learn.
    """
    if own.backend is not Backend.VXLAN:
        return "null"
    return json.dumps({"VNI": own.vni, "VtepMAC": own.vtep_mac}, separators=(",", ":"))


def vtep_mac(data: object, backend: Backend, *, name: str) -> str:
    """The VTEP MAC in parsed BackendData of node `name`, or ConfigError.

    Only vxlan nodes have one. Any other gets the MAC derived from its name.
    """
    if backend is not Backend.VXLAN:
        return derived_mac(name)
    if not isinstance(data, Mapping):
        raise ConfigError("its backend data hold no VtepMAC; has flannel there not started yet?")
    mac = folded(data).get("vtepmac")
    if not isinstance(mac, str):
        raise ConfigError("its backend data hold no VtepMAC; has flannel there not started yet?")
    return parse_mac(mac)


def net_conf(text: str | bytes) -> dict[str, Any]:
    """The members of a net-conf.json, the network's configuration, with keys in lower case.

    ConfigError: it is not a JSON object.
    """
    try:
        document = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}; put flannel's net-conf.json there") from None
    return section(document)


def section(document: object) -> dict[str, Any]:
    """The members of one section of a net-conf.json, with keys in lower case.

    ConfigError: it is not a JSON object.
    """
    if not isinstance(document, Mapping):
        raise ConfigError("is not a JSON object with Network and Backend")
    return folded(document)


def unknown_keys(text: str | bytes) -> list[str]:
    """The keys of a net-conf.json with a Backend that flannel reads nowhere, as they are spelt."""
    document = parse_json(text)
    backend = folded(document)["backend"]
    return [
        *(key for key in document if key.lower() not in _KEYS),
        *(f"Backend.{key}" for key in backend if key.lower() not in _BACKEND_KEYS),
    ]


def folded(members: Mapping[Any, Any]) -> dict[str, Any]:
    """`members` with lower-case keys: Go's encoding/json ignores the case of a key."""
    return {str(key).lower(): value for key, value in members.items()}
