# SPDX-License-Identifier: Apache-2.0
"""What wakes the agent: its one thread waits on descriptors and on the clock.

Events only say what may have changed; `pace` decides when that is reconciled.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vxlane.agent.agent import Agent
from vxlane.agent.pace import Pace
from vxlane.agent.server.notify import Readiness
from vxlane.agent.server.operations import Operations
from vxlane.agent.server.server import Server
from vxlane.agent.server.status import StatusStore
from vxlane.agent.steering import Steering
from vxlane.bypass.heartbeat import Heartbeat
from vxlane.config import Mode
from vxlane.host.events import RouteEvents, RulesetEvents, xfrm_events
from vxlane.host.firewall import is_about
from vxlane.host.notrack import RENEW_EVERY
from vxlane.sources.snapshot import NodeSource
from vxlane.util.dirty import Dirty
from vxlane.util.tally import Withdrawal

log = logging.getLogger(__name__)

# All in seconds.
RESYNC_EVERY = 30.0
"""From the end of one resync to the next: it compares all that may change without an event."""
_STEP_EVERY = 0.1
"""Between two steps of a resync; one takes 5 to 25 ms with 5,000 peers."""
_SYNC_EVERY = 1.0
_SETTINGS_EVERY = 10.0
"""Some of the programs' settings follow sysctls, which have no events."""
_TELL_EVERY = 10.0
"""How this node is; the cluster hears of it at a slower pace."""
_GATHER = {Mode.OWN: 0.003, Mode.ADOPT: 0.015}
"""See `Pace`. In mode adopt flanneld hears of a node when we do, and then writes its entries. One
reconcile serves both changes."""


@dataclass(slots=True)
class Timer:
    """Runs `action` every `period` seconds, first at `due` (CLOCK_MONOTONIC)."""

    period: float
    action: Callable[[], None]
    due: float


class Loop:
    """Runs one agent."""

    def __init__(
        self, agent: Agent, source: NodeSource, statuses: StatusStore, steering: Steering
    ) -> None:
        self._agent = agent
        self._statuses = statuses
        self._readiness = Readiness(agent.config.ready_file)
        self._source = source
        self._selector = selectors.DefaultSelector()
        self._routes = RouteEvents()
        self._rulesets = RulesetEvents()
        self._xfrm = xfrm_events()
        path = agent.config.state / "agent.sock"
        self._server = Server(path, Operations(agent).answer, self._selector)
        now = time.monotonic()
        self._steps = agent.resync()
        self._resync_timer = Timer(_STEP_EVERY, self._resync, now + RESYNC_EVERY)
        self._timers = self._made_timers(steering, now)
        self._pace = Pace(_GATHER[agent.config.mode], now)
        self._register(steering)
        events = [one for one in (self._routes, self._rulesets, self._xfrm) if one]
        self._heartbeat = Heartbeat([one.fileno() for one in events], agent.renew)
        self._is_behind = True
        """Whether some event was read that is not reconciled yet."""

    def _register(self, steering: Steering) -> None:
        """Wait on every descriptor."""
        agent = self._agent
        followed: list[tuple[int, Callable[[], None]]] = [
            (self._source.changed, self._on_nodes),
            (self._routes.fileno(), self._on_routes),
            (self._rulesets.fileno(), self._on_rulesets),
            (agent.readings, agent.on_read),
        ]
        if self._xfrm:
            followed.append((self._xfrm.fileno(), self._on_xfrm))
        if steering.changed >= 0:
            followed.append((steering.changed, steering.on_event))
        for descriptor, follow in agent.runtime_files.follow():
            followed.append((descriptor, partial(self._do, follow)))
        for descriptor, action in followed:
            self._selector.register(descriptor, selectors.EVENT_READ, action)

    def _made_timers(self, steering: Steering, now: float) -> list[Timer]:
        agent = self._agent
        timers = [
            self._resync_timer,
            Timer(_SETTINGS_EVERY, agent.apply_settings, now + _SETTINGS_EVERY),
            Timer(_SYNC_EVERY, lambda: self._request(agent.sync()), now + _SYNC_EVERY),
            Timer(_SYNC_EVERY, self._server.listen, now + _SYNC_EVERY),
            Timer(RENEW_EVERY, agent.renew_notrack, now + RENEW_EVERY),
        ]
        if agent.config.mode is Mode.OWN:
            every = agent.config.rules_interval
            timers.append(Timer(every, lambda: self._request(Dirty.RULES), now + every))
        if steering.changed >= 0:
            timers.append(Timer(_TELL_EVERY, steering.tell, now + 1.0))
        return timers

    def close(self) -> None:
        """Close what the loop opened."""
        self._readiness.stopping()
        self._heartbeat.close()
        self._server.close()
        self._routes.close()
        self._rulesets.close()
        if self._xfrm:
            self._xfrm.close()
        self._selector.close()

    def run(self) -> None:
        """Run until a signal ends it, at any point: the next agent repairs what is half done."""
        while True:
            due = min(self._pace.due, *(timer.due for timer in self._timers))
            events = self._selector.select(max(0.0, due - time.monotonic()))
            woke = time.monotonic()
            for key, _ in events:
                key.data()
            if not self._is_behind:
                self._heartbeat.catch_up(woke)
            now = time.monotonic()
            for timer in self._timers:
                if timer.due <= now:
                    timer.due = now + timer.period
                    timer.action()
            if self._pace.due <= now:
                self._reconcile(woke)
            if self._agent.is_serving:
                self._readiness.ready()

    def _resync(self) -> None:
        """Make one step of a resync. After the last one pause for `RESYNC_EVERY`."""
        dirty = next(self._steps, None)
        if dirty is None:
            self._steps = self._agent.resync()
            self._resync_timer.due = time.monotonic() + RESYNC_EVERY
        else:
            self._request(dirty)

    def _request(self, dirty: Dirty) -> None:
        self._pace.request(dirty, time.monotonic())

    def _reconcile(self, woke: float) -> None:
        """Reconcile what was requested by events before `woke`."""
        dirty, began, cpu = self._pace.take(), time.monotonic(), time.process_time()
        self._agent.reconcile(dirty)
        took = time.process_time() - cpu
        self._agent.tally.reconciles[dirty.label].observe(time.monotonic() - began)
        log.debug("reconciled %s in %.3f s of CPU", dirty, took)
        ended = self._pace.failed if self._agent.failures else self._pace.succeeded
        ended(time.monotonic(), took)
        self._is_behind = not self._agent.is_current
        if not self._is_behind:
            self._heartbeat.catch_up(max(woke, self._agent.loaded_at))
        self._statuses.post(self._agent)

    def _on_nodes(self) -> None:
        if self._source.on_event():
            self._request(Dirty.NODES)

    def _do(self, action: Callable[[], Dirty]) -> None:
        self._request(action())

    def _on_routes(self) -> None:
        self._heartbeat.fall_behind()
        dirty = self._agent.on_event(self._routes.read(self._agent.device))
        self._is_behind |= bool(dirty)
        self._request(dirty)

    def _on_rulesets(self) -> None:
        if change := self._rulesets.read():
            self._agent.on_rules(change)
            if is_about(change):
                self._request(Dirty.RULES)

    def _on_xfrm(self) -> None:
        if self._xfrm and self._xfrm.read():
            self._agent.withdraw_approvals(Withdrawal.IPSEC)
