# SPDX-License-Identifier: Apache-2.0
"""The result of an earlier plugin's ADD: read, and written in the wanted version.

A result is the specification's JSON object. Unknown keys stay in it, because a chain's plugins must
pass on what others made. Imports errors, request (versions) and wire.
"""

from __future__ import annotations

from vxlane_cni.errors import INVALID_CONFIG, CniError
from vxlane_cni.request import VERSIONS
from vxlane_cni.wire import JsonObject

_SINCE_1_1 = {
    "interfaces": ("mtu", "socketPath", "pciID"),
    "routes": ("mtu", "advmss", "priority", "table", "scope"),
}


class Result:
    """A result. Its lists have been checked to be lists of objects.

    document     as it came
    interfaces   those that the plugins before made, in any order
    ips          addresses; `interface` in one is an index into `interfaces`
    """

    __slots__ = ("document", "interfaces", "ips")

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise CniError(INVALID_CONFIG, "a result must be a JSON object")
        self.document: JsonObject = document
        self.interfaces = _objects(document, "interfaces")
        self.ips = _objects(document, "ips")

    def host_names(self) -> list[str]:
        """Names of the interfaces on the host's side: those without a sandbox."""
        names = [entry.get("name") for entry in self.interfaces if not entry.get("sandbox")]
        return [name for name in names if isinstance(name, str)]

    def addresses(self, ifname: str) -> list[str]:
        """Addresses of the container's interface `ifname`, without their prefix lengths.

        An address that names no interface counts too: with one container interface the
        specification lets a plugin leave the index out.
        """
        found = []
        for entry in self.ips:
            address, index = entry.get("address"), entry.get("interface")
            if not isinstance(address, str):
                raise CniError(INVALID_CONFIG, "a result's ips[] need an address")
            if index is None or self._is_container(index, ifname):
                found.append(address.partition("/")[0])
        return found

    def in_version(self, version: str) -> JsonObject:
        """The document in `version`; unchanged if it is in that version already."""
        if self.document.get("cniVersion") == version:
            return self.document
        written = {**self.document, "cniVersion": version}
        if "ips" in written:
            written["ips"] = [_ip_in(entry, version) for entry in self.ips]
        if version != VERSIONS[-1]:
            for key, newer in _SINCE_1_1.items():
                if key in written:
                    written[key] = [_without(entry, newer) for entry in _objects(written, key)]
        return written

    def with_gateways(self) -> JsonObject:
        """The document with a gateway in each route that has none.

        The bridge plugin gives such a route the gateway of the address. Its own CHECK then looks
        for a route without a gateway, and fails.
        """
        gateways = {
            _is_v6(gw): gw for entry in self.ips if isinstance(gw := entry.get("gateway"), str)
        }
        routes = [_via(route, gateways) for route in _objects(self.document, "routes")]
        return {**self.document, "routes": routes}

    def _is_container(self, index: object, ifname: str) -> bool:
        if not isinstance(index, int) or not 0 <= index < len(self.interfaces):
            raise CniError(INVALID_CONFIG, "a result's ips[] point at an interface it hasn't")
        interface = self.interfaces[index]
        return bool(interface.get("sandbox")) and interface.get("name") == ifname


def _objects(document: JsonObject, key: str) -> list[JsonObject]:
    """A list of objects, empty when it is missing or null."""
    entries = document.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CniError(INVALID_CONFIG, f"a result's {key} must be a list of objects")
    return entries


def _ip_in(entry: JsonObject, version: str) -> JsonObject:
    """An address in `version`: up to 0.4.0 it names its family, from 1.0.0 on it does not."""
    if not version.startswith("0."):
        return _without(entry, ("version",))
    return {"version": "6" if _is_v6(str(entry.get("address"))) else "4", **entry}


def _via(route: JsonObject, gateways: dict[bool, str]) -> JsonObject:
    """The route, with the gateway of its family if it has none."""
    gateway = route.get("gw") or gateways.get(_is_v6(str(route.get("dst"))))
    return {**route, "gw": gateway} if gateway else route


def _is_v6(text: str) -> bool:
    return ":" in text


def _without(entry: JsonObject, keys: tuple[str, ...]) -> JsonObject:
    return {key: value for key, value in entry.items() if key not in keys}
