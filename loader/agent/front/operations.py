"""What can be asked of the agent through its socket; the agent's README.md documents it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vxlane.loader.agent.agent import NO_BYPASS, Agent
from vxlane.loader.agent.bypass.attachments import parse_attachment, parse_key
from vxlane.loader.agent.bypass.bypass import Bypass
from vxlane.loader.agent.front.status import document
from vxlane.loader.errors import ConfigError

Json = dict[str, Any]


class Operations:
    """Answers requests of the CNI plugin and of the command line."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: dict[str, Callable[[Json], Json]] = {
            "attach": self._attach,
            "bypass": self._switch,
            "check": self._check,
            "detach": self._detach,
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

    def _attach(self, request: Json) -> Json:
        return _outcome(self._agent.attach(parse_attachment(request)))

    def _check(self, request: Json) -> Json:
        key = parse_key(request)
        if (bypass := self._agent.bypass) is None:
            return {"accelerated": False, "reason": NO_BYPASS}
        return _outcome(bypass.pods.check(key))

    def _detach(self, request: Json) -> Json:
        key = parse_key(request)
        if bypass := self._agent.bypass:
            bypass.pods.detach(key)
        self._agent.store.remove(key)
        return {}

    def _gc(self, request: Json) -> Json:
        valid = request.get("valid")
        if not isinstance(valid, list):
            raise ConfigError("valid must be a list of [container_id, ifname]")
        keys = {parse_key({"container_id": item[0], "ifname": item[1]}) for item in valid}
        bypass = self._agent.bypass
        network = str(request.get("network") or "")
        return {"removed": bypass.pods.keep_only(keys, network) if bypass else 0}

    def _flush(self, _: Json) -> Json:
        return {"epoch": self._bypass().lease.flush()}

    def _switch(self, request: Json) -> Json:
        enabled = request.get("enabled")
        if not isinstance(enabled, bool):
            raise ConfigError("enabled must be true or false")
        overlay = self._agent.overlay
        bypass = self._bypass()
        assert overlay is not None
        bypass.lease.switch(overlay, is_enabled=enabled)
        return {"bypass": "on" if enabled else "off"}

    def _status(self, _: Json) -> Json:
        return {"status": document(self._agent)}

    def _bypass(self) -> Bypass:
        if self._agent.bypass is None:
            raise ConfigError(NO_BYPASS)
        return self._agent.bypass


def _outcome(reason: str) -> Json:
    return {"accelerated": False, "reason": reason} if reason else {"accelerated": True}
