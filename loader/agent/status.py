"""What the agent says of itself: the answer to `status`, and `<state>/agent.json`.

Pure but for writing that file. README.md beside this file documents the keys.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxlane.loader.agent.bypass import Bypass
from vxlane.loader.agent.config import Config
from vxlane.loader.agent.overlay import Overlay
from vxlane.loader.nodes.model import Problem, Snapshot

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """All that a status document is made of."""

    config: Config
    snapshot: Snapshot
    overlay: Overlay | None
    bypass: Bypass | None
    problems: tuple[Problem, ...]
    failures: tuple[str, ...]
    """What could not be done at the last look, in whole sentences."""
    is_ready: bool
    looks: int
    """How often all this was compared and repaired."""


def document(state: State, now: float) -> Json:
    """The status document; `now` in CLOCK_MONOTONIC seconds."""
    snapshot, overlay, bypass = state.snapshot, state.overlay, state.bypass
    read_at = snapshot.read_at
    return {
        "node": state.config.node_name,
        "mode": state.config.mode.value,
        "pid": os.getpid(),
        "ready": state.is_ready,
        "bypass": _bypass(bypass),
        "epoch": bypass.lease.epoch if bypass else None,
        "address": str(overlay.address) if overlay else None,
        "vtep_mac": overlay.vtep_mac if overlay else None,
        "pod_cidr": str(snapshot.own.pod_cidr) if snapshot.own else None,
        "network": str(snapshot.network) if snapshot.network else None,
        "peers": len(overlay.paths) if overlay else 0,
        "pods": len(bypass.pods.places()) // 2 if bypass else 0,
        "looks": state.looks,
        "headers": bypass.report.headers if bypass else None,
        "source_age_seconds": None if read_at is None else round(now - read_at, 3),
        "source_error": snapshot.error or None,
        "failures": list(state.failures),
        "problems": [f"node {problem.node}: {problem.reason}" for problem in state.problems],
    }


def _bypass(bypass: Bypass | None) -> str:
    if bypass is None:
        return "unavailable"
    return "on" if bypass.lease.is_enabled else "off"


class Board:
    """The latest document: in `<state>/agent.json`, and for the threads that serve it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.latest: Json | None = None

    def post(self, content: Json) -> None:
        """Put the document in place by rename."""
        self.latest = content
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.rename(self._path)

    def is_ready(self) -> bool:
        """Whether the node's network is up."""
        return bool(self.latest and self.latest["ready"])
