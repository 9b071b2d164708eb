# SPDX-License-Identifier: Apache-2.0
"""The operations of the agent's socket; the agent's README.md documents them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vxlane.agent.agent import Agent
from vxlane.agent.server.status import document
from vxlane.bypass.bypass import Bypass
from vxlane.config import PodSource
from vxlane.errors import ConfigError
from vxlane.pods.interfaces import Key, PodInterface, parse_interface, parse_key
from vxlane.pods.pods import NO_BYPASS
from vxlane.util.tally import Withdrawal

Json = dict[str, Any]

ONLY_WATCHED = "the agent follows the runtime's cache alone (--pods watch); run vxlane uninstall"


class Operations:
    """Answers requests of the CNI plugin and of the command line."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: dict[str, Callable[[Json], Json]] = {
            "add": self._add,
            "bypass": self._switch,
            "check": self._check,
            "remove": self._remove,
            "flush": self._flush,
            "gc": self._gc,
            "status": self._status,
        }

    def answer(self, request: Json) -> Json:
        """The answer to one request; ConfigError says what is wrong with it."""
        operation = self._known.get(str(request.get("op")))
        if operation is None:
            known = ", ".join(self._known)
            raise ConfigError(f"op {request.get('op')!r} is not known; known are {known}")
        return operation(request)

    def _add(self, request: Json) -> Json:
        return self._told(request, self._agent.pods.add)

    def _check(self, request: Json) -> Json:
        return self._told(request, self._agent.pods.check)

    def _told(self, request: Json, action: Callable[[PodInterface], str]) -> Json:
        """Carry out what the plugin asks for a pod."""
        interface = parse_interface(request)
        if self._agent.config.pod_source is PodSource.WATCH:
            return _outcome(ONLY_WATCHED)
        return _outcome(action(interface))

    def _remove(self, request: Json) -> Json:
        self._agent.pods.remove(parse_key(request))
        return {}

    def _gc(self, request: Json) -> Json:
        valid = _keys(request.get("valid"))
        network = str(request.get("network") or "")
        stale = self._agent.pods.of_network(network) - valid
        for key in stale:
            self._agent.pods.remove(key)
        return {"removed": len(stale)}

    def _flush(self, _: Json) -> Json:
        return {"epoch": self._bypass().lease.flush(Withdrawal.ASKED)}

    def _switch(self, request: Json) -> Json:
        enabled = request.get("enabled")
        if not isinstance(enabled, bool):
            raise ConfigError("enabled must be true or false")
        self._bypass()  # else a ConfigError
        self._agent.switch(is_enabled=enabled)
        return {"bypass": "on" if enabled else "off"}

    def _status(self, _: Json) -> Json:
        return {"status": document(self._agent)}

    def _bypass(self) -> Bypass:
        if self._agent.bypass is None:
            raise ConfigError(NO_BYPASS)
        return self._agent.bypass


def _keys(valid: object) -> set[Key]:
    """The interfaces that GC is to keep."""
    wanted = ConfigError("valid must be a list of [container_id, ifname]")
    if not isinstance(valid, list):
        raise wanted
    keys = set()
    for item in valid:
        match item:
            case [container_id, ifname]:
                keys.add(parse_key({"container_id": container_id, "ifname": ifname}))
            case _:
                raise wanted
    return keys


def _outcome(reason: str) -> Json:
    return {"accelerated": False, "reason": reason} if reason else {"accelerated": True}
