# SPDX-License-Identifier: Apache-2.0
"""The agent's report to its cluster. It is short, since every node hears of each change.

docs/json.md documents the keys.
"""

from __future__ import annotations

from collections import deque
from importlib import metadata

from vxlane.agent.agent import Agent
from vxlane.agent.server.status import bypass_word
from vxlane.datapath.shares import bypassed_of
from vxlane.errors import VxlaneError
from vxlane.sources.steering import Report

_LONGEST = 200
"""Characters of the first trouble; `vxlane status` on the node has all of them."""
READINGS = 31
"""How many readings of the counters are kept: with one every ten seconds, five minutes."""


class Reports:
    """Makes reports; remembers the packets of the last minutes."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._version = metadata.version("vxlane")
        self._readings: deque[tuple[int, int]] = deque(maxlen=READINGS)

    def report(self) -> Report:
        """How the agent is now; the share is that of the last `READINGS`."""
        agent = self._agent
        problems = [f"node {item.node}: {item.reason}" for item in agent.problems.current]
        troubles = [*agent.failures, *problems]
        facts = {
            "version": self._version,
            "mode": agent.config.mode.value,
            "wish": str(agent.wish),
            "bypass": bypass_word(agent.bypass),
            "ready": agent.is_serving,
            "failures": len(agent.failures),
            "problems": len(problems),
            "trouble": troubles[0][:_LONGEST] if troubles else "",
        }
        return Report(facts, {"pods": len(agent.pods.ports()), **self._traffic()})

    def _traffic(self) -> dict[str, float | None]:
        bypass = self._agent.bypass
        try:
            bypassed, packets = bypassed_of(bypass.maps.counters()) if bypass else (0, 0)
        except VxlaneError:
            # Someone has unpinned the maps; the next reconcile makes new ones.
            bypassed, packets = 0, 0
        if self._readings and packets < self._readings[-1][1]:
            self._readings.clear()  # other maps
        self._readings.append((bypassed, packets))
        was_bypassed, were = self._readings[0]
        moved = packets - were
        share = round((bypassed - was_bypassed) / moved, 4) if moved else None
        return {"packets": moved, "share": share}
