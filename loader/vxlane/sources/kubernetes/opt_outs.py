# SPDX-License-Identifier: Apache-2.0
"""Which pods are to stay on the kernel path, by their own annotation or their namespace's.

Each pod is read once, when its network is made. flannel's role may get a pod, but neither list nor
watch pods, and large clusters break when each node watches all pods. So an annotation counts only
if the pod had it from its start. A pod's annotation overrides its namespace's.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from vxlane.errors import SourceError
from vxlane.sources.follow import STOP_TIMEOUT, Failure, Timing, attempt
from vxlane.sources.http import HttpError
from vxlane.sources.kubernetes.annotations import annotations_of
from vxlane.sources.kubernetes.api import NodesApi
from vxlane.sources.steering import BYPASS, is_off

log = logging.getLogger(__name__)

NAMESPACE_SECONDS = 30.0
"""How long a namespace's answer is used: a Deployment's pods come by the dozen."""
_REFUSALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


class OptOuts:
    """Reads pods from the API server in a thread of its own; calls `changed` for each answer."""

    def __init__(self, api: NodesApi, *, timing: Timing, changed: Callable[[], None]) -> None:
        self._api = api
        self._timing = timing
        self._changed = changed
        self._answers: dict[str, str | None] = {}
        """None: asked, and not answered yet."""
        self._namespaces: dict[str, tuple[float, bool]] = {}
        """When it was asked for, and whether it says off."""
        self._refused: set[str] = set()
        self._questions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="opt-outs", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def opt_out(self, pod: str) -> str | None:
        """See `Cluster`."""
        if pod.count("/") != 1:
            return ""  # no runtime of Kubernetes made it
        if pod not in self._answers:
            self._answers[pod] = None
            self._questions.put(pod)
        return self._answers[pod]

    def forget(self, pod: str) -> None:
        """See `Cluster`."""
        self._answers.pop(pod, None)

    def close(self) -> None:
        """Ask no more; may be called twice."""
        self._closed.set()
        self._questions.put(None)
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT)

    def _run(self) -> None:
        while (pod := self._questions.get()) is not None and not self._closed.is_set():
            self._settle(pod)

    def _settle(self, pod: str) -> None:
        """Ask until there is an answer. Until then the pod stays on the kernel path."""
        waits = self._timing.waits()
        while pod in self._answers and not self._closed.is_set():
            answer = attempt("opt-outs", lambda: self._asked(pod), self._complain)
            if not isinstance(answer, Failure):
                if pod in self._answers:
                    self._answers[pod] = answer
                self._changed()
                return
            self._closed.wait(max(next(waits), answer.pause))

    def _asked(self, pod: str) -> str:
        """Why this pod is opted out; empty: it is not. SourceError: it can't be told now."""
        namespace, _, name = pod.partition("/")
        said = is_off(self._read("pods", lambda: self._api.pod(namespace, name)))
        if said is not None:
            return f"its annotation {BYPASS} says off" if said else ""
        is_out = self._namespace_is_off(namespace)
        return f"the annotation {BYPASS} of namespace {namespace} says off" if is_out else ""

    def _namespace_is_off(self, namespace: str) -> bool:
        asked_at, is_out = self._namespaces.get(namespace, (-NAMESPACE_SECONDS, False))
        if time.monotonic() - asked_at >= NAMESPACE_SECONDS:
            found = self._read("namespaces", lambda: self._api.namespace(namespace))
            is_out = is_off(found) is True
            self._namespaces[namespace] = time.monotonic(), is_out
        return is_out

    def _read(self, what: str, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, str]:
        """The annotations of one object; none where it is gone, or we may not read it."""
        try:
            return annotations_of(call())
        except HttpError as error:
            if error.status in _REFUSALS:
                self._tell_once(what, error)
            elif error.status != HTTPStatus.NOT_FOUND:
                raise
            return {}

    def _tell_once(self, what: str, error: SourceError) -> None:
        if what not in self._refused:
            self._refused.add(what)
            log.info("annotations of %s do not count, the role may not read them: %s", what, error)

    def _complain(self, reason: str) -> None:
        log.warning("new pods stay on the kernel path until they can be read: %s", reason)
