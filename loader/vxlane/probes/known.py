# SPDX-License-Identifier: Apache-2.0
"""What was tried on this kernel, remembered until the machine starts again.

The file is the machine's, not an agent's: whoever runs here finds the same kernel.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from vxlane.probes import helpers
from vxlane.probes.helpers import PROBES, Answer, Result
from vxlane.util import files
from vxlane.util.jsontext import parse_json
from vxlane.util.places import KERNEL

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What the kernel calls the time since it was started."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


@functools.cache
def answers(path: Path = KERNEL) -> tuple[Result, ...]:
    """What each probe finds, tried at most once a boot, and not again in this process."""
    found = _read(path)
    if found is None:
        found = helpers.results()
        # What is not known now, as without root, may be known to the next one who asks.
        if all(each.answer is not Answer.UNKNOWN for each in found):
            _write(path, found)
    return found


def does(name: str) -> bool:
    """Whether the kernel does what the probe of this name asks; False where that is not known."""
    return any(each.name == name and each.answer is Answer.YES for each in answers())


def _stamp() -> dict[str, Any]:
    """What the answers hold for."""
    return {"boot_id": boot_id(), "names": [probe.name for probe in PROBES]}


def _read(path: Path) -> tuple[Result, ...] | None:
    try:
        document = parse_json(path.read_bytes())
        if {key: document[key] for key in ("boot_id", "names")} != _stamp():
            return None
        return tuple(
            helpers.as_result(probe, Answer(document["answers"][probe.name]), reason)
            for probe in PROBES
            for reason in [document["reasons"][probe.name]]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, found: tuple[Result, ...]) -> None:
    document = _stamp()
    document["answers"] = {each.name: each.answer.value for each in found}
    document["reasons"] = {each.name: each.reason for each in found}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, json.dumps(document))
    except OSError:
        pass  # the next one who asks tries again
