# SPDX-License-Identifier: Apache-2.0
"""Makes an agent from its options and runs it until a signal stops it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vxlane.agent.agent import Agent
from vxlane.agent.loop import Loop
from vxlane.agent.prepare import prepare
from vxlane.agent.server import health
from vxlane.agent.server.http import HttpServer
from vxlane.agent.server.status import StatusStore
from vxlane.agent.sole import make_directory, sole_agent
from vxlane.agent.steering import Steering
from vxlane.config import Config, Listen
from vxlane.datapath.programs import pin_directory
from vxlane.errors import ConfigError, SourceError
from vxlane.overlay.node_cache import NodeCache
from vxlane.sources.follow import DEFAULT_TIMING
from vxlane.sources.snapshot import NodeSource
from vxlane.util import interrupt
from vxlane.util.capabilities import missing
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)


def run(values: Mapping[str, Any]) -> None:
    """Run the agent that the options `values` describe until a signal stops it."""
    state = Path(values["state_dir"])
    if lacks := missing(["NET_ADMIN"]):
        raise ConfigError(f"the agent lacks {lacks}; give its container NET_ADMIN")
    make_directory(state)
    with _until_interrupted(), contextlib.ExitStack() as stack:
        status = state / "agent.json"
        standing_by = _standing_by(values, status) if values["stand_by"] else None
        stack.enter_context(sole_agent(state, standing_by=standing_by))
        statuses = StatusStore(status)
        # Before anything that may wait: an unanswered probe would end us.
        _serve(values, statuses, stack)
        config, source = _prepared(values, statuses)
        cache = NodeCache(config)
        served = cache.load()
        source.start(served)
        stack.callback(source.close)
        agent = Agent(config, source, cache=cache, served=served)
        stack.callback(agent.close)
        # Before pods are added: whether they may be is for the cluster to say.
        steering = Steering(agent, source.cluster)
        agent.runtime_files.read_pods()
        loop = Loop(agent, source, statuses, steering)
        stack.callback(loop.close)
        loop.run()


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    interrupt.catch()
    try:
        yield
    except KeyboardInterrupt as came:
        log.info("stopped: %s", came)


@contextlib.contextmanager
def _standing_by(values: Mapping[str, Any], status: Path) -> Iterator[None]:
    """Answer probes for the agent that serves, unless that one does so on the same port."""

    def is_ready() -> bool:
        try:
            return parse_json(status.read_bytes())["ready"] is True
        except (OSError, ValueError, LookupError, TypeError):
            return False

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ConfigError):
            _answer_probes(values, is_ready, stack)
        yield


def _answer_probes(
    values: Mapping[str, Any], is_ready: Callable[[], bool], stack: contextlib.ExitStack
) -> None:
    """Where a port is given for them."""
    if (port := values["healthz_port"]) > 0:
        listen = Listen(values["healthz_ip"], port)
        server = HttpServer(listen, health.answer(is_ready), "healthz")
        stack.callback(server.close)


def _serve(values: Mapping[str, Any], statuses: StatusStore, stack: contextlib.ExitStack) -> None:
    """Answer probes and scrapes, where ports are given for them."""
    _answer_probes(values, statuses.is_ready, stack)
    if port := values["metrics_port"]:
        # 11 MB that a node without a scraper is spared.
        from vxlane.agent.server import metrics  # noqa: PLC0415

        pins = pin_directory(Path(values["state_dir"]))
        answer = metrics.answer(pins, statuses)
        server = HttpServer(Listen(values["metrics_ip"], port), answer, "metrics")
        stack.callback(server.close)


def _prepared(values: Mapping[str, Any], statuses: StatusStore) -> tuple[Config, NodeSource]:
    """See `prepare`. While the source can't be asked, wait and try again, as flanneld does."""
    waits, reason = DEFAULT_TIMING.waits(), ""
    while True:
        try:
            return prepare(values)
        except SourceError as error:
            if str(error) != reason:
                reason = str(error)
                log.warning("not started yet: %s", reason)
                statuses.wait_for(reason)
            time.sleep(next(waits))
