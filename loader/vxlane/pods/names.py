# SPDX-License-Identifier: Apache-2.0
"""The names of this node's pods, and how a person may refer to a pod.

Reads the agent's files, whether the agent lives or not. A pod whose file can't be read has no name.
Nothing is removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from vxlane.datapath.records import IPAddress, Pod
from vxlane.errors import OptionError
from vxlane.util.jsontext import parse_json
from vxlane.util.names import device_name


@dataclass(frozen=True, slots=True)
class PodNames:
    """`addresses`: namespace/pod, as the runtime told it -> its addresses."""

    addresses: Mapping[str, Sequence[IPv4Address]] = field(default_factory=dict)

    def by_address(self) -> dict[IPAddress, str]:
        """Every pod's address that has a name."""
        return {each: name for name, listed in self.addresses.items() for each in listed}

    def find(self, word: str, pods: Mapping[IPAddress, Pod]) -> IPAddress:
        """The address that `word` means. `word` is an address, a name with or without namespace, or
        the veth of one of `pods`. OptionError: it means none, or several.
        """
        with contextlib.suppress(ValueError):
            return ip_address(word)
        behind = [address for address, pod in pods.items() if device_name(pod.ifindex) == word]
        found = self._called(word) | ({word: behind[:1]} if behind else {})
        every = [(name, address) for name, listed in found.items() for address in listed]
        if len(every) == 1:
            return every[0][1]
        if every:
            choice = ", ".join(f"{name} {address}" for name, address in every)
            raise OptionError(f"{word!r} may be {choice}; give the address")
        raise OptionError(
            f"{word!r}: no pod of this node is known by that name; give its address, which"
            " 'vxlane pods' lists"
        )

    def words(self, pods: Mapping[IPAddress, Pod]) -> list[str]:
        """All words that `find` accepts, without addresses."""
        short = [name.rpartition("/")[2] for name in self.addresses]
        return sorted(
            {*self.addresses, *short, *(device_name(pod.ifindex) for pod in pods.values())}
        )

    def _called(self, word: str) -> dict[str, list[IPAddress]]:
        return {
            name: list(listed)
            for name, listed in self.addresses.items()
            if word in (name, name.rpartition("/")[2])
        }


def read_pod_names(state: Path) -> PodNames:
    """The names in the agent's state directory."""
    found: dict[str, list[IPv4Address]] = {}
    for path in sorted((state / "pods").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            document = parse_json(path.read_bytes())
            if document["name"]:
                addresses = [IPv4Address(address) for address in document["addresses"]]
                found.setdefault(str(document["name"]), []).extend(addresses)
    return PodNames(found)
