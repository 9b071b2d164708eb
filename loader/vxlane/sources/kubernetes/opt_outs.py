# SPDX-License-Identifier: Apache-2.0
"""Which pods are to stay on the kernel path, by their own annotation or their namespace's.

Each pod is read once, when its network is made. flannel's role may get a pod, but neither list nor
watch pods, and large clusters break when each node watches all pods. So an annotation counts only
if the pod had it from its start. A pod's annotation overrides its namespace's.

After a failure the same question is asked again, with a back-off: it is about all pods. So is a
401, which says nothing of the role. A 403 may be about one object. Every role may get pods, and a
server that has just started may not know it. So a refused pod is asked for again later, and other
pods meanwhile. A role may lack namespaces, so the annotations of a refused one do not count.
"""

from __future__ import annotations

import contextlib
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
_REFUSALS = {
    "pods": (logging.WARNING, "pods stay on the kernel path while we may not read them"),
    "namespaces": (logging.INFO, "annotations of namespaces do not count, we may not read them"),
}
"""What a 403 means for pods and for namespaces, and how loud it is told."""


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
        self._told: set[str] = set()
        self._complaint = ""
        self._refused: dict[str, float] = {}
        """Pods that got a 403, and when to ask again: the next one first."""
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
        while (pod := self._next()) is not None and not self._closed.is_set():
            self._refused.pop(pod, None)
            self._settle(pod)

    def _next(self) -> str | None:
        """A new pod, or else one that was refused and is due. None: no more."""
        wait = None
        if self._refused:
            wait = max(0.0, next(iter(self._refused.values())) - time.monotonic())
        with contextlib.suppress(queue.Empty):
            return self._questions.get(timeout=wait)
        return next(iter(self._refused))

    def _settle(self, pod: str) -> None:
        """Ask until there is an answer, or a 403. Until then the pod stays on the kernel path."""
        waits = self._timing.waits()
        # One that was forgotten and asked for anew is in the queue twice.
        while self._answers.get(pod, "") is None and not self._closed.is_set():
            answer = attempt("opt-outs", lambda: self._asked(pod), self._complain)
            if isinstance(answer, Failure):
                self._closed.wait(max(next(waits), answer.pause))
            elif answer is None:
                self._refused[pod] = time.monotonic() + self._timing.longest
                return
            else:
                self._complaint = ""
                if pod in self._answers:
                    self._answers[pod] = answer
                self._changed()
                return

    def _asked(self, pod: str) -> str | None:
        """Why this pod is opted out; empty: it is not. None: we may not read it.

        SourceError: nothing can be told now.
        """
        namespace, _, name = pod.partition("/")
        found = self._read("pods", lambda: self._api.pod(namespace, name))
        if found is None:
            return None
        said = is_off(found)
        if said is not None:
            return f"its annotation {BYPASS} says off" if said else ""
        is_out = self._namespace_is_off(namespace)
        return f"the annotation {BYPASS} of namespace {namespace} says off" if is_out else ""

    def _namespace_is_off(self, namespace: str) -> bool:
        asked_at, is_out = self._namespaces.get(namespace, (-NAMESPACE_SECONDS, False))
        if time.monotonic() - asked_at >= NAMESPACE_SECONDS:
            found = self._read("namespaces", lambda: self._api.namespace(namespace))
            is_out = is_off(found or {}) is True
            self._namespaces[namespace] = time.monotonic(), is_out
        return is_out

    def _read(self, what: str, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, str] | None:
        """The annotations of one object; none where it is gone. None: we may not read it."""
        try:
            return annotations_of(call())
        except HttpError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return {}
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            self._tell_once(what, error)
            return None

    def _tell_once(self, what: str, error: SourceError) -> None:
        if what not in self._told:
            self._told.add(what)
            level, words = _REFUSALS[what]
            log.log(level, "%s: %s", words, error)

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            log.warning("new pods stay on the kernel path until they can be read: %s", reason)
        self._complaint = reason
