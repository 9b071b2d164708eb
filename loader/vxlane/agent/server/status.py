# SPDX-License-Identifier: Apache-2.0
"""What the agent says of itself: the answer to `status`, and `<state>/agent.json`.

docs/json.md documents the keys.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from vxlane.agent.agent import Agent
from vxlane.bypass.bypass import Bypass
from vxlane.util import files

Json = dict[str, Any]


def document(agent: Agent) -> Json:
    """What `agent` says of itself now."""
    snapshot, overlay, bypass = agent.snapshot, agent.overlay, agent.bypass
    read_at = snapshot.read_at
    return {
        "node": agent.config.node_name,
        "mode": agent.config.mode.value,
        "pid": os.getpid(),
        "ready": agent.is_ready,
        "bypass": _bypass(bypass),
        "epoch": bypass.lease.epoch if bypass else None,
        "address": str(overlay.address) if overlay else None,
        "vtep_mac": overlay.vtep_mac if overlay else None,
        "pod_cidr": str(snapshot.own.pod_cidr) if snapshot.own else None,
        "network": str(snapshot.network) if snapshot.network else None,
        "peers": len(overlay.paths) if overlay else 0,
        "pods": len(bypass.pods.places()) // 2 if bypass else 0,
        "waiting_for": _waiting_for(agent),
        "reconciles": agent.reconciles,
        "headers": bypass.report.headers if bypass else None,
        "source_age_seconds": None if read_at is None else round(time.monotonic() - read_at, 3),
        "source_error": snapshot.error or None,
        "mechanisms": agent.judged.document(),
        "rules_unread": agent.judged.is_unread,
        "failures": list(agent.failures),
        "problems": [f"node {problem.node}: {problem.reason}" for problem in agent.problems],
    }


def _waiting_for(agent: Agent) -> str | None:
    """Why the node's network is not up yet; None: it is."""
    if agent.is_ready:
        return None
    problems = [f"node {problem.node} {problem.reason}" for problem in agent.problems]
    reasons = [agent.snapshot.error, *agent.failures, *problems]
    return next(filter(None, reasons), "a first answer of the source of nodes")


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
        self._write(content)

    def _write(self, content: Json) -> None:
        files.replace(self._path, json.dumps(content, indent=2) + "\n")

    def wait_for(self, reason: str) -> None:
        """The agent has not started yet, because of `reason`."""
        content = {"pid": os.getpid(), "ready": False, "bypass": "unavailable"}
        self._write(content | {"waiting_for": reason})

    def is_ready(self) -> bool:
        """Whether the node's network is up."""
        return bool(self.latest and self.latest["ready"])
