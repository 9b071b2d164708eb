# SPDX-License-Identifier: Apache-2.0
"""What makes the agent look: its one thread, waiting on descriptors and on the clock.

Events only say what may have changed. The first one of a calm is answered within milliseconds;
after that there is a pause that grows with the work, and a limit, so that 500 changes in a second
are a few looks and not 500.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from vxlane.agent.agent import Agent
from vxlane.agent.server.notify import Readiness
from vxlane.agent.server.operations import Operations
from vxlane.agent.server.server import Server
from vxlane.agent.server.status import Board, document
from vxlane.bypass.lease import RENEW_EVERY
from vxlane.config import Mode
from vxlane.host.events import RouteEvents, RulesetEvents
from vxlane.sources.snapshot import NodeSource
from vxlane.util.dirty import ALL, Dirty

log = logging.getLogger(__name__)

# All in seconds.
RESYNC_EVERY = 30.0
"""Between two rounds along everything that nobody may have told of."""
_STEP_EVERY = 0.1
"""Between two steps of a round; one takes 5 to 25 ms with 5,000 peers."""
_SYNC_EVERY = 1.0
_GATHER = {Mode.OWN: 0.003, Mode.ADOPT: 0.015}
"""Between an event and the look: what comes in one go is looked at in one go. flanneld hears of a
node when we do, and then writes its entries: adopt waits for both."""
_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
"""Between two looks: as much as the last one took of the CPU, within these bounds."""
_MOST_PER_SECOND = 8
"""At most. Only a storm gets that far; a change after a timer's look does not wait."""
_LONGEST_RETRY = 30.0


@dataclass(slots=True)
class Timer:
    """Runs `action` every `period` seconds, first at `due` (CLOCK_MONOTONIC)."""

    period: float
    action: Callable[[], None]
    due: float


class Loop:
    """Runs one agent."""

    def __init__(self, agent: Agent, source: NodeSource, board: Board) -> None:
        self._agent = agent
        self._board = board
        self._readiness = Readiness(agent.config.ready_file)
        self._source = source
        self._selector = selectors.DefaultSelector()
        self._routes = RouteEvents()
        self._rulesets = RulesetEvents()
        path = agent.config.state / "agent.sock"
        self._server = Server(path, Operations(agent).answer, self._selector)
        for descriptor, action in (
            (source.changed, self._on_nodes),
            (self._routes.fileno(), self._on_routes),
            (self._rulesets.fileno(), self._on_rulesets),
        ):
            self._selector.register(descriptor, selectors.EVENT_READ, action)
        now = time.monotonic()
        self._steps = agent.resync()
        self._walk = Timer(_STEP_EVERY, self._resync, now + RESYNC_EVERY)
        self._timers = [
            self._walk,
            Timer(RENEW_EVERY, agent.renew, now + RENEW_EVERY),
            Timer(_SYNC_EVERY, agent.sync_connections, now + _SYNC_EVERY),
        ]
        if agent.config.mode is Mode.OWN:
            every = agent.config.rules_interval
            self._timers.append(Timer(every, lambda: self._request(Dirty.RULES), now + every))
        self._pending = ALL
        self._due = now
        self._not_before = now
        self._reconciled_at = deque([-inf] * _MOST_PER_SECOND, maxlen=_MOST_PER_SECOND)
        self._failures_in_a_row = 0

    def close(self) -> None:
        """Close what the loop opened."""
        self._readiness.stopping()
        self._server.close()
        self._routes.close()
        self._rulesets.close()
        self._selector.close()

    def run(self) -> None:
        """Until a signal ends it: all can be cut short, as kill -9 would, and the next goes on."""
        while True:
            deadlines = [timer.due for timer in self._timers]
            if self._pending:
                deadlines.append(self._due)
            for key, _ in self._selector.select(max(0.0, min(deadlines) - time.monotonic())):
                key.data()
            now = time.monotonic()
            for timer in self._timers:
                if timer.due <= now:
                    timer.due = now + timer.period
                    timer.action()
            if self._pending and self._due <= now:
                self._reconcile()

    def _resync(self) -> None:
        """One step of the round; after the last one there is a rest."""
        dirty = next(self._steps, None)
        if dirty is None:
            self._steps = self._agent.resync()
            self._walk.due = time.monotonic() + RESYNC_EVERY
        else:
            self._request(dirty)

    def _request(self, dirty: Dirty) -> None:
        """Look at `dirty`, as soon as that may be."""
        if not dirty:
            return
        gather = _GATHER[self._agent.config.mode]
        soonest = max(time.monotonic() + gather, self._not_before)
        self._due = min(self._due, soonest) if self._pending else soonest
        self._pending |= dirty

    def _reconcile(self) -> None:
        dirty, self._pending = self._pending, Dirty(0)
        began = time.process_time()
        self._agent.reconcile(dirty)
        now, took = time.monotonic(), time.process_time() - began
        self._reconciled_at.append(now)
        pause = min(max(_PAUSE, took), _LONGEST_PAUSE)
        self._not_before = max(now + pause, self._reconciled_at[0] + 1.0)
        log.debug("reconciled %s in %.3f s of CPU", dirty, took)
        if self._agent.has_failed:
            self._failures_in_a_row += 1
            self._pending = ALL
            self._due = now + min(2.0 ** (self._failures_in_a_row - 1), _LONGEST_RETRY)
        else:
            self._failures_in_a_row = 0
        if self._agent.is_ready:
            self._readiness.ready()
        self._board.post(document(self._agent))

    def _on_nodes(self) -> None:
        if self._source.on_event():
            self._request(Dirty.NODES)

    def _on_routes(self) -> None:
        self._request(self._agent.on_event(self._routes.read(self._agent.device)))

    def _on_rulesets(self) -> None:
        if self._rulesets.read():
            self._agent.rules_changed()
            self._request(Dirty.RULES | Dirty.PORTS)
