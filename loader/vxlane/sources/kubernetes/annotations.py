# SPDX-License-Identifier: Apache-2.0
"""flannel's annotations of Node objects: reading them, and writing ours.

Pure. Names and values are flannel's pkg/subnet/kube (annotations.go, kube.go).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from vxlane.errors import ConfigError
from vxlane.sources.model import (
    Announcement,
    Backend,
    Node,
    Problem,
    parse_address,
    parse_cidr,
)
from vxlane.sources.wire import backend_data, vtep_mac
from vxlane.util.jsontext import parse_json

DEFAULT_PREFIX = "flannel.alpha.coreos.com"

# flannel's own pattern (annotations.go, newAnnotations).
_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]+-)?")


class Annotations:
    """Flannel's annotation names under one prefix (its --kube-annotation-prefix)."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        full = prefix if "/" in prefix else f"{prefix}/"
        full = full if full.endswith(("/", "-")) else f"{full}-"
        if not _PREFIX.fullmatch(full):
            raise ConfigError(f"annotation prefix {prefix!r} must look like {DEFAULT_PREFIX}")
        self.managed = f"{full}kube-subnet-manager"
        self.type = f"{full}backend-type"
        self.data = f"{full}backend-data"
        self.address = f"{full}public-ip"
        self.address_overwrite = f"{full}public-ip-overwrite"
        self.address_choice = f"{full}node-public-ip"

    def entry(self, node: Mapping[str, Any], own_name: str) -> Node | Problem | None:
        """The node that a Node object describes; None: flannel does not run there.

        For this node itself that is a Problem: it has not been announced yet.
        """
        name, found = name_of(node), annotations_of(node)
        if found.get(self.managed) != "true":
            reason = f"has not announced itself: it has no annotation {self.managed}=true"
            return Problem(name, reason) if name == own_name else None
        try:
            backend = Backend.of(found.get(self.type, ""))
            return Node(
                name=name,
                address=parse_address(_present(found, self.address)),
                pod_cidr=parse_cidr(_pod_cidr(node)),
                vtep_mac=vtep_mac(self._data(found), backend, name=name),
                backend=backend,
            )
        except ConfigError as error:
            return Problem(name, str(error))

    def wanted(self, own: Announcement, found: Mapping[str, str]) -> dict[str, str]:
        """The annotations that are missing in `found` to announce `own`."""
        try:
            address = self.overwrite(found) or own.address
        except ConfigError:
            address = own.address
        wanted = {
            self.data: backend_data(own),
            self.type: own.backend.value,
            self.managed: "true",
            self.address: str(address),
        }
        return {key: value for key, value in wanted.items() if found.get(key) != value}

    def overwrite(self, found: Mapping[str, str]) -> IPv4Address | None:
        """The address to announce in place of this node's own: that of a NAT in front of it."""
        text = found.get(self.address_overwrite)
        try:
            return parse_address(text) if text else None
        except ConfigError as error:
            raise ConfigError(f"annotation {self.address_overwrite}: {error}") from None

    def _data(self, found: Mapping[str, str]) -> object:
        try:
            return parse_json(found.get(self.data, "null"))
        except ValueError:
            raise ConfigError(f"annotation {self.data} is not JSON") from None


def _present(found: Mapping[str, str], annotation: str) -> str:
    if annotation not in found:
        raise ConfigError(f"annotation {annotation} is missing")
    return found[annotation]


def name_of(node: Mapping[str, Any]) -> str:
    """The name of a Node object."""
    return str(node["metadata"]["name"])


def uid_of(node: Mapping[str, Any]) -> str:
    """Tells a Node object from an earlier one of the same name."""
    return str(node["metadata"]["uid"])


def annotations_of(node: Mapping[str, Any]) -> Mapping[str, str]:
    """The annotations of an object."""
    found: Mapping[str, str] = (node.get("metadata") or {}).get("annotations") or {}
    return found


def _pod_cidr(node: Mapping[str, Any]) -> str:
    spec = node.get("spec") or {}
    for cidr in spec.get("podCIDRs") or [spec.get("podCIDR") or ""]:
        if cidr and ":" not in cidr:
            return str(cidr)
    advice = "does the controller manager allocate node CIDRs (--allocate-node-cidrs)?"
    raise ConfigError(f"it has no IPv4 podCIDR; {advice}")
