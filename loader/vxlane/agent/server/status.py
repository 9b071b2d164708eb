# SPDX-License-Identifier: Apache-2.0
"""The agent's status document: the answer to `status`, and `<state>/agent.json`.

docs/json.md documents the keys.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from vxlane.agent.agent import Agent
from vxlane.bypass.bypass import Bypass
from vxlane.datapath.records import IPNetwork
from vxlane.util import files
from vxlane.util.tally import Tally

log = logging.getLogger(__name__)

Json = dict[str, Any]


def document(agent: Agent) -> Json:
    """The status of `agent` now."""
    snapshot, overlay, bypass = agent.snapshot, agent.overlay, agent.bypass
    read_at = snapshot.read_at
    return {
        "node": agent.config.node_name,
        "mode": agent.config.mode.value,
        "pid": os.getpid(),
        "ready": agent.is_serving,
        "bypass": bypass_word(bypass),
        "wanted": str(agent.wish),
        "epoch": bypass.lease.epoch if bypass else None,
        "address": str(overlay.address) if overlay else None,
        "vtep_mac": overlay.vtep_mac if overlay else None,
        "pod_cidr": str(snapshot.own.pod_cidr) if snapshot.own else None,
        "network": str(snapshot.network) if snapshot.network else None,
        "peers": len(overlay.paths) if overlay else 0,
        "pods": len(agent.pods.ports()),
        "pods_told_by": agent.config.pod_source.value,
        "waiting_for": _waiting_for(agent),
        "reconciles": agent.reconciles,
        "headers": bypass.report.headers if bypass else None,
        "source_age_seconds": None if read_at is None else round(time.monotonic() - read_at, 3),
        "source_error": snapshot.error or None,
        "mechanisms": agent.judged.document(),
        "notrack": agent.notrack.state,
        "rules_unread": agent.judged.is_unread,
        "failures": list(agent.failures),
        "problems": [
            f"node {problem.node}: {problem.reason}" for problem in agent.problems.current
        ],
    }


def _waiting_for(agent: Agent) -> str | None:
    """Why the node is not served yet, or not at the moment. None: it is served."""
    if agent.is_serving:
        return None
    if agent.is_ready:
        return "the agent's own next reconcile: its lease has run out"
    problems = [f"node {problem.node} {problem.reason}" for problem in agent.problems.current]
    reasons = [agent.snapshot.error, *agent.failures, *problems]
    return next(filter(None, reasons), "a first answer of the source of nodes")


def bypass_word(bypass: Bypass | None) -> str:
    """The state of the bypass, in the word that documents use."""
    if bypass is None:
        return "unavailable"
    if not bypass.lease.is_enabled:
        return "off"
    return "on" if bypass.lease.is_held and bypass.is_whole else "lapsed"


class StatusStore:
    """The latest document: in `<state>/agent.json`, and for the threads that serve it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._agent: Agent | None = None
        self._refusal = ""
        self.latest: Json | None = None

    def post(self, agent: Agent) -> None:
        """Publish the status of `agent` as it is now."""
        self._agent, self.latest = agent, document(agent)
        self._write(self.latest)

    def _write(self, content: Json) -> None:
        """Write the file. A failure, as of a full disk, is only logged, and only when it is new."""
        refusal = ""
        try:
            files.replace(self._path, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            refusal = f"write {self._path}: {error.strerror}; make room"
        if refusal and refusal != self._refusal:
            log.warning("%s", refusal)
        self._refusal = refusal

    @property
    def tally(self) -> Tally | None:
        """The agent's counters. None before its first reconcile."""
        return self._agent.tally if self._agent else None

    def node_names(self) -> dict[IPNetwork, str]:
        """The peers' names by their pod CIDRs."""
        overlay = self._agent.overlay if self._agent else None
        paths = overlay.paths if overlay else ()
        return {path.node.pod_cidr: path.node.name for path in paths}

    def wait_for(self, reason: str) -> None:
        """The agent has not started yet, because of `reason`."""
        content = {"pid": os.getpid(), "ready": False, "bypass": "unavailable"}
        self._write(content | {"waiting_for": reason})

    def is_ready(self) -> bool:
        """Whether the node is served now. The agent itself is asked, because its loop may hang."""
        return self._agent is not None and self._agent.is_serving
