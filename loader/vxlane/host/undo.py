# SPDX-License-Identifier: Apache-2.0
"""Notes what `vxlane detach` has to undo on this node, before it is done.

Owns one small JSON file in the state directory. What was there before vxlane (a device of flanneld,
a sysctl that had its value already) is not noted, and so it stays.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vxlane.errors import KernelError
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Undo:
    """The traces of one node's agent."""

    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Name -> value before us."""
    network: str = ""
    """The network of all pods, if vxlane made the kernel path. Routes inside it are ours then."""
    device: str = ""
    """The VXLAN device of that kernel path."""
    subnet_file: str = ""
    blackhole: str = ""
    """The pod CIDR for which a blackhole route was made."""
    notrack: str = ""
    """The nftables table by which the tunnel's packets are not tracked."""
    copies: str = ""
    """The nftables table that ends the way of the copies for conntrack."""


class UndoFile:
    """Reads and writes the file: what is noted is on disk before `note` returns.

    A file system that is full or read-only does not stop the agent. A node without a network is
    worse than one about which `vxlane detach` knows too little. `save` reports it and tries again.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "undo"
        document = _read(self._path)
        known = {item.name for item in dataclasses.fields(Undo)}
        self.known = Undo(**{key: value for key, value in document.items() if key in known})
        self._foreign = {key: value for key, value in document.items() if key not in known}
        """Keys of a newer version, which are written back as they are."""
        self.is_first = not self._path.exists()
        """Whether no agent has noted anything here yet."""
        self._is_saved = True

    def note(self, **changes: object) -> None:
        """Note what is about to be made."""
        known = dataclasses.replace(self.known, **changes)  # type: ignore[arg-type]
        if known == self.known and not self.is_first:
            return
        self.known, self.is_first, self._is_saved = known, False, False
        try:
            self.save()
        except KernelError as error:
            log.debug("%s", error)

    def note_sysctls(self, before: Mapping[str, str]) -> None:
        """Note the values from before vxlane. What an earlier agent noted is older, and stays."""
        self.note(sysctls={**before, **self.known.sysctls})

    def save(self) -> None:
        """Write what could not be written before. KernelError: it still can't be written."""
        if self._is_saved:
            return
        document = self._foreign | dataclasses.asdict(self.known)
        try:
            files.replace_durably(self._path, json.dumps(document, indent=2))
        except OSError as error:
            advice = "make room, or 'vxlane detach' will not know all that was made"
            raise KernelError(f"write {self._path}", error.errno or 0, advice) from None
        self._is_saved = True

    def forget(self) -> None:
        """All is undone."""
        self._path.unlink(missing_ok=True)
        self.known, self._foreign = Undo(), {}


def _read(path: Path) -> dict[str, Any]:
    """The file's document. A file that can't be used is renamed, for a person to read."""
    try:
        document = parse_json(path.read_bytes())
        _check(document)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        aside = path.with_name("undo.unreadable")
        log.warning("%s is not what an agent wrote (%s): see %s", path, error, aside)
        log.warning("what was made before now will stay when 'vxlane detach' is run")
        try:
            path.replace(aside)
        except OSError as refusal:
            log.warning("rename %s: %s", path, refusal.strerror)
        return {}
    found: dict[str, Any] = document
    return found


def _check(document: object) -> None:
    """ValueError unless the keys that are known hold what they should."""
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 (with JSON that is none it is one kind)
    sysctls = document.get("sysctls", {})
    if not isinstance(sysctls, dict):
        raise ValueError(f"sysctls is {sysctls!r}")  # noqa: TRY004 (likewise)
    texts = {item.name: document.get(item.name, "") for item in dataclasses.fields(Undo)}
    for name, value in {**texts, "sysctls": "", **sysctls}.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}")  # noqa: TRY004 (likewise)
