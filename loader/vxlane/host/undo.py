# SPDX-License-Identifier: Apache-2.0
"""What `vxlane detach` has to take back: noted in the state directory before it is done.

Owns one small JSON file. What was there before vxlane came (a device of flanneld's, a sysctl that
already had its value) is not in it, and so stays.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vxlane.errors import ConfigError
from vxlane.util import files


@dataclass(frozen=True, slots=True)
class Undo:
    """The traces of one node's agent."""

    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Name -> value before us."""
    device: str = ""
    """The VXLAN device, if the overlay was made by us; empty: it was there, and is to stay."""
    network: str = ""
    """Of all pods: routes inside it are ours."""
    subnet_file: str = ""
    blackhole: str = ""
    """Pod CIDR that a blackhole route was made for."""


class UndoFile:
    """Reads and writes the file; every change is on disk before it is made."""

    def __init__(self, state: Path) -> None:
        self._path = state / "undo"
        self.known = _read(self._path)

    @property
    def is_first(self) -> bool:
        """Whether no agent has noted anything here yet."""
        return not self._path.exists()

    def note(self, **changes: object) -> None:
        """Note what is about to be made."""
        known = dataclasses.replace(self.known, **changes)  # type: ignore[arg-type]
        if known != self.known or self.is_first:
            files.replace_durably(self._path, json.dumps(dataclasses.asdict(known), indent=2))
            self.known = known

    def note_sysctls(self, before: Mapping[str, str]) -> None:
        """Note the values before us; what an earlier agent noted is older and stays."""
        self.note(sysctls={**before, **self.known.sysctls})

    def forget(self) -> None:
        """All is undone."""
        self._path.unlink(missing_ok=True)
        self.known = Undo()


def _read(path: Path) -> Undo:
    try:
        document = json.loads(path.read_text())
        return Undo(**document)
    except FileNotFoundError:
        return Undo()
    except (ValueError, TypeError) as error:
        advice = "mend it, or remove it and what it would undo stays"
        raise ConfigError(f"{path} is not readable ({error}); {advice}") from None
