# SPDX-License-Identifier: Apache-2.0
"""/healthz and /readyz over HTTP, with flannel's bodies, so that its probes fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from vxlane.agent.server.http import Answer, Response


def answer(is_ready: Callable[[], bool]) -> Answer:
    """The answers to probes. /readyz asks `is_ready` each time."""

    def respond(path: str, _: Mapping[str, str]) -> Response:
        if path == "/healthz":
            return Response(b"flanneld is running")
        if path != "/readyz":
            return Response(b"there are /healthz and /readyz", HTTPStatus.NOT_FOUND)
        if is_ready():
            return Response(b"flanneld is ready")
        return Response(b"flanneld is not ready yet", HTTPStatus.SERVICE_UNAVAILABLE)

    return respond
